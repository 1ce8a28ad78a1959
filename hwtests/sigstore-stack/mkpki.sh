#!/bin/bash
# Keys and certificates for the stack, into $WORK/pki. Needs openssl 3.
set -e; mkdir -p "$WORK/pki"; cd "$WORK/pki"
# Fulcio: P-256 root + P-256 intermediate (EKU codeSigning, pathlen 0); key encrypted the RFC 1423 way, as fileca wants
openssl ecparam -name prime256v1 -genkey -noout -out froot.key
openssl req -x509 -new -key froot.key -sha256 -days 3650 -subj "/O=example.test/CN=example root" -out froot.pem \
  -addext basicConstraints=critical,CA:TRUE,pathlen:1 -addext keyUsage=critical,keyCertSign,cRLSign
openssl ecparam -name prime256v1 -genkey -noout -out fint.clear.key
printf 'basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\nextendedKeyUsage=codeSigning\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' > fint.ext
openssl req -new -key fint.clear.key -subj "/O=example.test/CN=example intermediate" | \
  openssl x509 -req -CA froot.pem -CAkey froot.key -CAcreateserial -sha256 -days 1095 -extfile fint.ext -out fint.pem
openssl ec -in fint.clear.key -aes256 -passout pass:fulcio -out fint.key
cat fint.pem froot.pem > fchain.pem
# The logs' keys are made behind the daemon (up.sh): there is no file of them.
# TSA: P-256 root + leaf with critical EKU timeStamping only
openssl ecparam -name prime256v1 -genkey -noout -out troot.key
openssl req -x509 -new -key troot.key -sha256 -days 3650 -subj "/O=example.test/CN=example tsa root" -out troot.pem \
  -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign
openssl ecparam -name prime256v1 -genkey -noout -out tleaf.key
printf 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' > tleaf.ext
openssl req -new -key tleaf.key -subj "/O=example.test/CN=example tsa" | \
  openssl x509 -req -CA troot.pem -CAkey troot.key -CAcreateserial -sha256 -days 1095 -extfile tleaf.ext -out tleaf.pem
cat tleaf.pem troot.pem > tchain.pem
