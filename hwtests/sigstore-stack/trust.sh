#!/bin/bash
# Makes trusted_root.json, signing_config.json, sc_key.json (no Fulcio) and trust_config.json (sigstore-python) in $WORK.
set -e; cd "$WORK"; P=$WORK/pki; T=2026-01-01T00:00:00Z; O=operator=example.test
"$COSIGN" trusted-root create \
  --fulcio="url=http://localhost:5555,certificate-chain=$P/fchain.pem,start-time=$T" \
  --ctfe="url=http://localhost:6962,public-key=$P/ct.pub,start-time=$T" \
  --rekor="url=http://localhost:3003,public-key=$P/rekor.pub,start-time=$T,origin=localhost" \
  --tsa="url=http://localhost:3005/api/v1/timestamp,certificate-chain=$P/tchain.pem,start-time=$T" \
  --out trusted_root.json
LOGS=(--rekor="url=http://localhost:3003,api-version=2,start-time=$T,$O" --rekor-config=ANY
      --tsa="url=http://localhost:3005/api/v1/timestamp,api-version=1,start-time=$T,$O" --tsa-config=ANY)
"$COSIGN" signing-config create --fulcio="url=http://localhost:5555,api-version=1,start-time=$T,$O" \
  --oidc-provider="url=http://localhost:18080,api-version=1,start-time=$T,$O" "${LOGS[@]}" --out signing_config.json
"$COSIGN" signing-config create "${LOGS[@]}" --out sc_key.json
python3 - <<'PY'
import json
json.dump({"mediaType":"application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
  "trustedRoot":json.load(open("trusted_root.json")),"signingConfig":json.load(open("signing_config.json"))},open("trust_config.json","w"),indent=1)
PY
