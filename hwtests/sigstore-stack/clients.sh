#!/bin/bash
# Every unmodified client against the running stack; one PASS/FAIL line each. Environment as in `run`, which starts this.
# Exit status = number of failures.
# shellcheck disable=SC2086,SC2046,SC2015 # lists of words are meant
cd "$WORK" || exit 2; mkdir -p c; export HOME=$WORK/home; mkdir -p "$HOME"; fails=0; rm -rf jscache "$HOME/.sigstore"
I=dev@example.test; U=http://localhost:18080; C=$COSIGN; V="--certificate-identity $I --certificate-oidc-issuer $U"
TR="--trusted-root trusted_root.json"; SC="--signing-config signing_config.json"; S="$PY -m sigstore --trust-config trust_config.json"
PV="--cert-identity $I --cert-oidc-issuer $U"; J=$JS
tok() { curl -s "$U/token?sub=$I"; }   # sub = e-mail: @sigstore/sign before 4.x proves possession over sub for unknown issuers
ok() { n=$1; shift; s=$(date +%s%N); if "$@" > c/out.txt 2>&1; then r=PASS; else r=FAIL; fails=$((fails+1)); fi
       echo "$r $(( ($(date +%s%N)-s)/1000000 ))ms $n"; [ $r = PASS ] || tail -3 c/out.txt; }
no() { n=$1; shift; if "$@" > c/out.txt 2>&1; then echo "FAIL (accepted) $n"; fails=$((fails+1)); else echo "PASS (refused) $n"; fi; }
echo hello > c/a.txt; echo other > c/b.txt; H=$(sha256sum c/a.txt | cut -d' ' -f1)
echo '{"buildDefinition":{"buildType":"https://example.test/b","externalParameters":{"a":"b"}},"runDetails":{"builder":{"id":"https://example.test/x"}}}' > c/prov.json
echo '{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a.txt","digest":{"sha256":"'$H'"}}],"predicateType":"https://slsa.dev/provenance/v1","predicate":'$(cat c/prov.json)'}' > c/stmt.json
ok "first entry (index 0 trips python's bundle parser when cosign writes it)" $C sign-blob $TR $SC --identity-token "$(tok)" --bundle c/0.json -y c/b.txt
ok "cosign sign-blob" $C sign-blob $TR $SC --identity-token "$(tok)" --bundle c/a.json -y c/a.txt
ok "cosign verify-blob" $C verify-blob $TR $V --bundle c/a.json c/a.txt
no "cosign verify-blob, other file" $C verify-blob $TR $V --bundle c/a.json c/b.txt
no "cosign verify-blob, other identity" $C verify-blob $TR --certificate-identity x@example.test --certificate-oidc-issuer $U --bundle c/a.json c/a.txt
no "token for another audience" $C sign-blob $TR $SC --identity-token "$(curl -s "$U/token?aud=x")" --bundle c/x.json -y c/a.txt
ok "cosign attest-blob (statement v1)" $C attest-blob $TR $SC --identity-token "$(tok)" --statement c/stmt.json --bundle c/att.json -y c/a.txt
ok "cosign verify-blob-attestation" $C verify-blob-attestation $TR $V --type slsaprovenance1 --bundle c/att.json c/a.txt
ok "python sign" $S sign --overwrite --identity-token "$(tok)" --bundle c/py.json c/a.txt
ok "python verify own" $S verify identity $PV --bundle c/py.json c/a.txt
ok "python verify cosign's" $S verify identity $PV --bundle c/a.json c/a.txt
ok "python verify cosign's attestation" $S verify identity $PV --bundle c/att.json c/a.txt
ok "cosign verify python's" $C verify-blob $TR $V --bundle c/py.json c/a.txt
ok "python attest" $S attest --overwrite --identity-token "$(tok)" --predicate c/prov.json --predicate-type https://slsa.dev/provenance/v1 --bundle c/pyatt.json c/a.txt
ok "cosign verify python's attestation" $C verify-blob-attestation $TR $V --type slsaprovenance1 --bundle c/pyatt.json c/a.txt
tar cf c/l.tar -C c a.txt; R=localhost:5000/app; $CRANE append --oci-empty-base -f c/l.tar -t $R:1 >/dev/null 2>&1; D=$R@$($CRANE digest $R:1)
ok "cosign sign image" $C sign $TR $SC --identity-token "$(tok)" -y $D
ok "cosign verify image" $C verify $TR $V $D
ok "cosign attest image" $C attest $TR $SC --identity-token "$(tok)" --predicate c/prov.json --type slsaprovenance1 -y $D
ok "cosign verify-attestation image" $C verify-attestation $TR $V --type slsaprovenance1 $D
mkdir -p kms plug; { echo "#!$PY"; sed 1d "$TOOLS/sigstore-kms-demo"; } > plug/sigstore-kms-demo; chmod +x plug/sigstore-kms-demo
export PATH=$WORK/plug:$PATH DEMO_KMS_DIR=$WORK/kms
ok "cosign generate-key-pair through a KMS plugin" bash -c "cd c && $C generate-key-pair --kms demo://k1"
ok "cosign sign-blob through a KMS plugin" $C sign-blob --key demo://k1 --signing-config sc_key.json $TR --bundle c/k.json -y c/a.txt
ok "cosign verify-blob --key" $C verify-blob --key c/cosign.pub $TR --bundle c/k.json c/a.txt
rm -rf tuf; "$PY" "$TOOLS/mktuf.py" tuf trusted_root.json signing_config.json
python3 -m http.server 18081 --bind 127.0.0.1 --directory tuf > log/tuf.log 2>&1 & TUF=$!; sleep 1
ok "cosign initialize from a TUF mirror" $C initialize --mirror http://localhost:18081 --root tuf/1.root.json
ok "cosign sign-blob with TUF only" $C sign-blob --identity-token "$(tok)" --bundle c/t.json -y c/a.txt
ok "cosign verify-blob with TUF only" $C verify-blob $V --bundle c/t.json c/a.txt
JV="--tuf-mirror-url http://localhost:18081 --tuf-root-path tuf/1.root.json --tuf-cache-path $WORK/jscache --certificate-issuer $U --certificate-identity-email $I"
ok "js verify cosign's" $J verify $JV --blob-file c/a.txt c/a.json
ok "js verify python's attestation" $J verify $JV c/pyatt.json
ok "js attest, TSA only" env CI=true SIGSTORE_ID_TOKEN="$(tok)" $J attest --fulcio-url http://localhost:5555 --tsa-server-url http://localhost:3005 --no-tlog-upload --timeout 30 --payload-type application/vnd.in-toto+json -o c/js.json c/stmt.json
ok "js verify own" $J verify $JV --tlog-threshold 0 c/js.json
kill $TUF; echo "failures: $fails"; exit $fails
