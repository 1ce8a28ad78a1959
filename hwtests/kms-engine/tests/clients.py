"""Drives a running engine with the vendors' own clients: aws, google or azure.

Arguments: the face, and the line of JSON that `kms-engine` printed.
Each function ends with an assertion error on the first thing that is not as the vendor's client expects it.
"""

import hashlib
import json
import os
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

MESSAGE = b"signed by a key that cannot leave"
HASHES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


def digest(bits):
    return hashlib.new("sha" + bits, MESSAGE).digest()


def verify(public, signature, bits, pss=False):
    """By an implementation that is neither the engine's nor the client's."""
    if isinstance(public, ec.EllipticCurvePublicKey):
        public.verify(signature, digest(bits), ec.ECDSA(utils.Prehashed(HASHES[bits])))
    elif isinstance(public, rsa.RSAPublicKey):
        pad = padding.PSS(padding.MGF1(HASHES[bits]), len(digest(bits))) if pss else padding.PKCS1v15()
        public.verify(signature, digest(bits), pad, utils.Prehashed(HASHES[bits]))
    elif isinstance(public, ed25519.Ed25519PublicKey):
        public.verify(signature, MESSAGE)
    else:
        raise AssertionError(f"unexpected key {public}")


def refuses(call, *words):
    try:
        call()
    except Exception as error:  # each client has its own kinds
        text = f"{type(error).__name__} {error}"
        assert all(word in text for word in words), f"{words} in: {text}"
        return
    raise AssertionError(f"done, but it must be refused: {words}")


def aws(engine):
    import boto3
    from botocore.config import Config

    def client(secret=engine["aws_secret_access_key"]):
        return boto3.client(
            "kms", region_name="us-east-1", endpoint_url=engine["url"],
            aws_access_key_id=engine["aws_access_key_id"], aws_secret_access_key=secret,
            config=Config(retries={"mode": "standard", "max_attempts": 3}),
        )

    kms = client()
    keys = {}
    for spec, algorithms in {
        "ECC_NIST_P256": ["ECDSA_SHA_256"], "ECC_NIST_P384": ["ECDSA_SHA_384"], "ECC_NIST_P521": ["ECDSA_SHA_512"],
        "RSA_2048": ["RSASSA_PSS_SHA_256", "RSASSA_PKCS1_V1_5_SHA_512"], "RSA_3072": ["RSASSA_PSS_SHA_384"],
        "RSA_4096": ["RSASSA_PKCS1_V1_5_SHA_256"],
    }.items():
        key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY", Description=spec)["KeyMetadata"]
        assert key["KeyState"] == "Enabled" and key["KeySpec"] == spec
        keys[spec] = key["KeyId"]
        public = serialization.load_der_public_key(kms.get_public_key(KeyId=key["Arn"])["PublicKey"])
        for algorithm in algorithms:
            bits = algorithm[-3:]
            for kind, message in ("DIGEST", digest(bits)), ("RAW", MESSAGE):
                arguments = {"KeyId": key["KeyId"], "MessageType": kind, "Message": message, "SigningAlgorithm": algorithm}
                signature = kms.sign(**arguments)["Signature"]
                verify(public, signature, bits, "PSS" in algorithm)
                assert kms.verify(Signature=signature, **arguments)["SignatureValid"]
                refuses(lambda: kms.verify(Signature=signature[:-1] + bytes([signature[-1] ^ 1]), **arguments), "KMSInvalidSignature")
    p256 = keys["ECC_NIST_P256"]
    edwards = kms.create_key(KeySpec="ECC_NIST_EDWARDS25519", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=edwards)["PublicKey"])
    verify(public, kms.sign(KeyId=edwards, MessageType="RAW", Message=MESSAGE, SigningAlgorithm="ED25519_SHA_512")["Signature"], "512")
    prehash = {"KeyId": edwards, "MessageType": "DIGEST", "Message": digest("512"), "SigningAlgorithm": "ED25519_PH_SHA_512"}
    assert kms.verify(Signature=kms.sign(**prehash)["Signature"], **prehash)["SignatureValid"]
    for spec in "ML_DSA_44", "ML_DSA_65", "ML_DSA_87":
        key = kms.create_key(KeySpec=spec, KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
        arguments = {"KeyId": key, "MessageType": "RAW", "Message": MESSAGE, "SigningAlgorithm": "ML_DSA_SHAKE_256"}
        assert kms.verify(Signature=kms.sign(**arguments)["Signature"], **arguments)["SignatureValid"]
    # Pages.
    ids = [k["KeyId"] for page in kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 3}) for k in page["Keys"]]
    assert len(ids) == len(set(ids)) == 10, ids
    # Aliases.
    for name in "alias/a", "alias/b/c", "alias/d":
        kms.create_alias(AliasName=name, TargetKeyId=p256)
    aliases = [a["AliasName"] for page in kms.get_paginator("list_aliases").paginate(KeyId=p256, PaginationConfig={"PageSize": 2}) for a in page["Aliases"]]
    assert aliases == ["alias/a", "alias/b/c", "alias/d"]
    assert kms.describe_key(KeyId="alias/a")["KeyMetadata"]["KeyId"] == p256
    kms.update_alias(AliasName="alias/a", TargetKeyId=edwards)
    assert kms.describe_key(KeyId="alias/a")["KeyMetadata"]["KeyId"] == edwards
    kms.delete_alias(AliasName="alias/a")
    kms.tag_resource(KeyId=p256, Tags=[{"TagKey": "k", "TagValue": "v"}])
    assert kms.list_resource_tags(KeyId=p256)["Tags"] == [{"TagKey": "k", "TagValue": "v"}]
    # Refusals.
    refuses(lambda: kms.describe_key(KeyId="alias/a"), "NotFoundException")
    refuses(lambda: kms.describe_key(KeyId="11111111-1111-1111-1111-111111111111"), "NotFoundException")
    refuses(lambda: kms.create_alias(AliasName="alias/d", TargetKeyId=p256), "AlreadyExistsException")
    sign = lambda message, algorithm, kind="DIGEST": kms.sign(KeyId=p256, MessageType=kind, Message=message, SigningAlgorithm=algorithm)
    refuses(lambda: sign(b"x" * 20, "ECDSA_SHA_256"), "ValidationException", "length")
    refuses(lambda: sign(digest("384"), "ECDSA_SHA_384"), "InvalidKeyUsageException")
    refuses(lambda: sign(b"x" * 4097, "ECDSA_SHA_256", "RAW"), "ValidationException")
    refuses(lambda: kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="ENCRYPT_DECRYPT"), "ValidationException")
    kms.disable_key(KeyId=p256)
    refuses(lambda: sign(digest("256"), "ECDSA_SHA_256"), "DisabledException")
    kms.enable_key(KeyId=p256)
    kms.schedule_key_deletion(KeyId=p256, PendingWindowInDays=7)
    refuses(lambda: sign(digest("256"), "ECDSA_SHA_256"), "KMSInvalidStateException", "pending deletion")
    kms.cancel_key_deletion(KeyId=p256)
    assert kms.describe_key(KeyId=p256)["KeyMetadata"]["KeyState"] == "Disabled"
    refuses(lambda: client("wrong").list_keys(), "InvalidSignatureException")


def google(engine):
    os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = engine["google_credentials"]
    from google.cloud import kms
    from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceRestTransport
    import google.auth
    import google_crc32c

    # Over REST the client makes its exceptions of HTTP's codes.
    credentials, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloudkms"])
    assert project == "signerd-tests"
    host = engine["url"].removeprefix("http://")
    transport = KeyManagementServiceRestTransport(host=host, credentials=credentials, url_scheme="http")
    client = kms.KeyManagementServiceClient(transport=transport)
    algorithms = kms.CryptoKeyVersion.CryptoKeyVersionAlgorithm
    states = kms.CryptoKeyVersion.CryptoKeyVersionState
    location = f"projects/{project}/locations/global"
    ring = client.create_key_ring(request={"parent": location, "key_ring_id": "python", "key_ring": {}}).name
    refuses(lambda: client.create_key_ring(request={"parent": location, "key_ring_id": "python", "key_ring": {}}), "already exists")

    def create(name, algorithm, level=kms.ProtectionLevel.SOFTWARE):
        key = {
            "purpose": kms.CryptoKey.CryptoKeyPurpose.ASYMMETRIC_SIGN,
            "version_template": {"algorithm": algorithm, "protection_level": level},
        }
        key = client.create_crypto_key(request={"parent": ring, "crypto_key_id": name, "crypto_key": key}).name
        return wait(f"{key}/cryptoKeyVersions/1")

    def wait(version):
        while client.get_crypto_key_version(request={"name": version}).state == states.PENDING_GENERATION:
            pass
        return version

    for number, algorithm in enumerate(
        [
            algorithms.EC_SIGN_P256_SHA256, algorithms.EC_SIGN_P384_SHA384, algorithms.RSA_SIGN_PSS_2048_SHA256,
            algorithms.RSA_SIGN_PSS_3072_SHA256, algorithms.RSA_SIGN_PKCS1_2048_SHA256, algorithms.RSA_SIGN_PKCS1_4096_SHA512,
            algorithms.EC_SIGN_ED25519,
        ]
    ):
        version = create(f"key-{number}", algorithm)
        answer = client.get_public_key(request={"name": version})
        assert answer.algorithm == algorithm and answer.name == version
        assert answer.pem_crc32c == google_crc32c.value(answer.pem.encode())
        public = serialization.load_pem_public_key(answer.pem.encode())
        bits = algorithm.name[-3:]
        if algorithm == algorithms.EC_SIGN_ED25519:
            request = {"name": version, "data": MESSAGE, "data_crc32c": google_crc32c.value(MESSAGE)}
        else:
            value = digest(bits)
            request = {"name": version, "digest": {f"sha{bits}": value}, "digest_crc32c": google_crc32c.value(value)}
        signed = client.asymmetric_sign(request=request)
        assert signed.name == version and signed.signature_crc32c == google_crc32c.value(signed.signature)
        assert signed.verified_digest_crc32c or signed.verified_data_crc32c
        verify(public, signed.signature, bits, "PSS" in algorithm.name)
    quantum = create("quantum", algorithms.PQ_SIGN_ML_DSA_65)
    refuses(lambda: client.get_public_key(request={"name": quantum}), "400")
    raw = client.get_public_key(request={"name": quantum, "public_key_format": kms.PublicKey.PublicKeyFormat.NIST_PQC})
    assert len(raw.public_key.data) == 1952 and raw.public_key.crc32c_checksum == google_crc32c.value(raw.public_key.data)
    assert len(client.asymmetric_sign(request={"name": quantum, "data": MESSAGE}).signature) == 3309
    # Pages.
    names = [k.name for k in client.list_crypto_keys(request={"parent": ring, "page_size": 3})]
    assert len(names) == len(set(names)) == 8, names
    # Versions.
    key = f"{ring}/cryptoKeys/key-0"
    second = wait(client.create_crypto_key_version(request={"parent": key, "crypto_key_version": {}}).name)
    assert second.endswith("/2")
    sign = lambda **fields: client.asymmetric_sign(request={"name": second, **fields})
    client.update_crypto_key_version(request={"crypto_key_version": {"name": second, "state": states.DISABLED}, "update_mask": {"paths": ["state"]}})
    refuses(lambda: sign(digest={"sha256": digest("256")}), "400", "DISABLED")
    client.update_crypto_key_version(request={"crypto_key_version": {"name": second, "state": states.ENABLED}, "update_mask": {"paths": ["state"]}})
    # Refusals.
    refuses(lambda: sign(digest={"sha256": b"x" * 20}), "400")
    refuses(lambda: sign(digest={"sha384": digest("384")}), "400")
    refuses(lambda: sign(digest={"sha256": digest("256")}, digest_crc32c=1), "400", "checksum")
    refuses(lambda: client.get_crypto_key_version(request={"name": second.replace("/2", "/9")}), "NotFound")
    client.destroy_crypto_key_version(request={"name": second})
    refuses(lambda: sign(digest={"sha256": digest("256")}), "400", "DESTROY_SCHEDULED")
    client.restore_crypto_key_version(request={"name": second})
    assert [v.state for v in client.list_crypto_key_versions(request={"parent": key, "page_size": 1})] == [states.ENABLED, states.DISABLED]
    # Hardware.
    hardware = client.get_crypto_key_version(request={"name": create("hardware", algorithms.EC_SIGN_P256_SHA256, kms.ProtectionLevel.HSM)})
    import gzip
    from cryptography import x509

    statement = gzip.decompress(hardware.attestation.content)
    partition = x509.load_pem_x509_certificate(hardware.attestation.cert_chains.cavium_certs[0].encode())
    partition.public_key().verify(statement[-256:], statement[:-256], padding.PKCS1v15(), hashes.SHA256())


def azure(engine):
    from azure.identity import ClientSecretCredential
    from azure.keyvault.keys import KeyClient
    from azure.keyvault.keys.crypto import CryptographyClient, SignatureAlgorithm

    credential = ClientSecretCredential(
        engine["azure_tenant"], engine["azure_client_id"], engine["azure_client_secret"],
        authority=engine["tls_url"], disable_instance_discovery=True, connection_verify=engine["ca"],
    )
    # The engine is not under a vault's name here, so that the client's check of the challenge is off.
    options = {"connection_verify": engine["ca"], "verify_challenge_resource": False}
    client = KeyClient(engine["tls_url"], credential, **options)

    def check(key, *algorithms):
        crypto = CryptographyClient(key.id, credential, **options)
        for algorithm in algorithms:
            value = digest(algorithm.value[2:])
            signed = crypto.sign(algorithm, value)
            assert signed.key_id == key.id, (signed.key_id, key.id)
            # Verified by the SDK itself, on this side, with the key that the vault gave.
            assert crypto.verify(algorithm, value, signed.signature).is_valid

    kinds = SignatureAlgorithm
    for curve, algorithm in ("P-256", kinds.es256), ("P-384", kinds.es384), ("P-521", kinds.es512):
        check(client.create_ec_key("ec-" + curve[2:], curve=curve), algorithm)
    for size in 2048, 3072, 4096:
        check(client.create_rsa_key(f"rsa-{size}", size=size), kinds.rs256, kinds.ps256, kinds.rs384, kinds.ps384, kinds.rs512, kinds.ps512)
    # Pages, versions.
    for number in range(30):
        client.create_ec_key(f"many-{number:02}", curve="P-256")
    names = [k.name for k in client.list_properties_of_keys()]
    assert len(names) == len(set(names)) == 36, names
    names = [k.name for k in client.list_properties_of_keys(max_page_size=7)]
    assert len(names) == len(set(names)) == 36, names
    first = client.get_key("ec-256")
    second = client.rotate_key("ec-256")
    assert second.properties.version != first.properties.version
    assert client.get_key("EC-256").properties.version == second.properties.version
    assert len(list(client.list_properties_of_key_versions("ec-256"))) == 2
    # Refusals.
    crypto = CryptographyClient(first.id, credential, **options)
    refuses(lambda: crypto.sign(kinds.es256, b"x" * 20), "Invalid length")
    refuses(lambda: client.get_key("nobody"), "ResourceNotFoundError", "KeyNotFound")
    refuses(lambda: client.create_ec_key("under_score", curve="P-256"))
    client.update_key_properties("ec-256", version=first.properties.version, enabled=False)
    disabled = CryptographyClient(first.id, credential, **options)
    refuses(lambda: disabled._client.sign(first.name, first.properties.version, {"alg": "ES256", "value": digest("256")}), "disabled")
    # Deletion.
    client.begin_delete_key("rsa-2048").wait()
    assert [k.name for k in client.list_deleted_keys()] == ["rsa-2048"]
    refuses(lambda: client.create_rsa_key("rsa-2048"), "ResourceExistsError", "deleted but recoverable")
    client.begin_recover_deleted_key("rsa-2048").wait()
    client.begin_delete_key("rsa-2048").wait()
    client.purge_deleted_key("rsa-2048")
    client.create_rsa_key("rsa-2048")
    wrong = ClientSecretCredential(
        engine["azure_tenant"], engine["azure_client_id"], "wrong",
        authority=engine["tls_url"], disable_instance_discovery=True, connection_verify=engine["ca"],
    )
    refuses(lambda: KeyClient(engine["tls_url"], wrong, **options).get_key("ec-256"), "AADSTS7000215")


if __name__ == "__main__":
    {"aws": aws, "google": google, "azure": azure}[sys.argv[1]](json.loads(sys.argv[2]))
    print("ok")
