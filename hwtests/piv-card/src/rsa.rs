//! RSA as a card does it: the bare private operation on a block that the host has padded.
//!
//! The time it takes depends on the key, which is why no product may do it like this. Here the keys are worth nothing.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
};
use num_bigint::BigUint;
use pkcs8::{PrivateKeyInfoRef, der::Decode};
use serde::{Deserialize, Serialize};

use crate::keys::random;

/// The exponent of every key on the card.
pub(crate) const EXPONENT: u32 = 65_537;

/// The two primes; everything else follows from them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RsaKey {
    p: Vec<u8>,
    q: Vec<u8>,
}

impl RsaKey {
    /// A new key with a modulus of so many bytes.
    pub(crate) fn generate(length: usize) -> Option<Self> {
        let size = match length {
            128 => return Some(Self::generate_small(64)),
            256 => KeySize::Rsa2048,
            384 => KeySize::Rsa3072,
            512 => KeySize::Rsa4096,
            _ => return None,
        };
        let document = KeyPair::generate(size).ok()?.as_der().ok()?;
        let info = PrivateKeyInfoRef::from_der(document.as_ref()).ok()?;
        let key = pkcs1::RsaPrivateKeyRef::from_der(info.private_key.as_bytes()).ok()?;
        Some(Self { p: key.prime1.as_bytes().to_vec(), q: key.prime2.as_bytes().to_vec() })
    }

    /// A key of a size that aws-lc-rs makes no more.
    fn generate_small(prime_length: usize) -> Self {
        let p = prime(prime_length);
        let q = loop {
            let q = prime(prime_length);
            if q != p {
                break q;
            }
        };
        Self { p: p.to_bytes_be(), q: q.to_bytes_be() }
    }

    /// A key from outside; none where the primes do not make a modulus of this length.
    pub(crate) fn import(p: &[u8], q: &[u8], length: usize) -> Option<Self> {
        let key = Self { p: p.to_vec(), q: q.to_vec() };
        let [p, q] = [BigUint::from_bytes_be(p), BigUint::from_bytes_be(q)];
        let usable = p != q && probably_prime(&p) && probably_prime(&q);
        (usable && (&p * &q).bits() == 8 * length as u64 && key.crt().is_some()).then_some(key)
    }

    pub(crate) fn modulus(&self) -> Vec<u8> {
        (BigUint::from_bytes_be(&self.p) * BigUint::from_bytes_be(&self.q)).to_bytes_be()
    }

    /// `block ^ d mod n`, as long as the modulus; none where the block is not a number below it.
    pub(crate) fn private_operation(&self, block: &[u8]) -> Option<Vec<u8>> {
        let Crt { p, q, dp, dq, q_inverse } = self.crt()?;
        let (n, block_number) = (&p * &q, BigUint::from_bytes_be(block));
        if block.len() as u64 * 8 != n.bits().next_multiple_of(8) || block_number >= n {
            return None;
        }
        let (m1, m2) = ((&block_number % &p).modpow(&dp, &p), (&block_number % &q).modpow(&dq, &q));
        let difference = (&m1 + &p) - (&m2 % &p);
        let m = m2 + (difference * q_inverse % &p) * q;
        let bytes = m.to_bytes_be();
        let mut padded = vec![0; block.len() - bytes.len()];
        padded.extend(bytes);
        Some(padded)
    }

    /// None where the primes are none.
    fn crt(&self) -> Option<Crt> {
        let (p, q) = (BigUint::from_bytes_be(&self.p), BigUint::from_bytes_be(&self.q));
        let (p1, q1) = (&p - 1_u32, &q - 1_u32);
        let e = BigUint::from(EXPONENT);
        let (dp, dq) = (e.modinv(&p1)?, e.modinv(&q1)?);
        let q_inverse = q.modinv(&p)?;
        Some(Crt { p, q, dp, dq, q_inverse })
    }
}

struct Crt {
    p: BigUint,
    q: BigUint,
    dp: BigUint,
    dq: BigUint,
    q_inverse: BigUint,
}

/// A prime with its two highest bits set, so that two of them make a modulus of twice the length.
fn prime(length: usize) -> BigUint {
    let e = BigUint::from(EXPONENT);
    loop {
        let mut bytes = random(length);
        bytes[0] |= 0xC0;
        bytes[length - 1] |= 1;
        let candidate = BigUint::from_bytes_be(&bytes);
        if e.modinv(&(&candidate - 1_u32)).is_some() && probably_prime(&candidate) {
            return candidate;
        }
    }
}

/// Small divisors, then sixteen rounds of Miller and Rabin.
fn probably_prime(n: &BigUint) -> bool {
    let (zero, one, two) = (BigUint::ZERO, BigUint::from(1_u32), BigUint::from(2_u32));
    if n.bits() < 256 || (3_u32..1000).step_by(2).chain([2]).any(|d| n % d == zero) {
        return false;
    }
    let n1 = n - &one;
    let zeros = n1.trailing_zeros().unwrap_or(0);
    let odd = &n1 >> zeros;
    (0..16).all(|_| {
        let base = BigUint::from_bytes_be(&random(n.to_bytes_be().len())) % (n - 3_u32) + &two;
        let mut x = base.modpow(&odd, n);
        if x == one || x == n1 {
            return true;
        }
        (1..zeros).any(|_| {
            x = x.modpow(&two, n);
            x == n1
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_exponent_undoes_the_private_operation() {
        for length in [128, 256] {
            let key = RsaKey::generate(length).unwrap();
            let n = BigUint::from_bytes_be(&key.modulus());
            let mut block = random(length);
            block[0] = 0;
            let signature = key.private_operation(&block).unwrap();
            assert_eq!(signature.len(), length);
            let back = BigUint::from_bytes_be(&signature).modpow(&EXPONENT.into(), &n);
            assert_eq!(back, BigUint::from_bytes_be(&block));
            assert!(key.private_operation(&block[1..]).is_none());
            assert!(key.private_operation(&vec![0xFF; length]).is_none());
        }
    }

    #[test]
    fn primes_that_are_none_are_refused() {
        let key = RsaKey::generate(128).unwrap();
        assert!(RsaKey::import(&key.p, &key.q, 128).is_some());
        assert!(RsaKey::import(&key.p, &key.p, 128).is_none());
        assert!(RsaKey::import(&key.p, &[], 128).is_none());
        assert!(RsaKey::import(&key.p, &key.q, 256).is_none());
        assert!(RsaKey::import(&key.p, &vec![0xFF; 64], 128).is_none());
    }
}
