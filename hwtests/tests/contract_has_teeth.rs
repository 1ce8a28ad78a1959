//! The contract itself: a good backend with one thing broken does not pass.
#![allow(clippy::unwrap_used)] // tests

use std::sync::Arc;

use hwtests::{
    engines::{Engine, Software},
    fixture::Direct,
};
use signer_contract::{Fixture, PinSetup, Profile, checks, run};
use signer_core::{
    Backend, BackendInfo, BoxFuture, Delete, Error, Generate, GenerateRequest, Import, ImportRequest,
    KeyInfo, KeyName, KeyPage, KeySelector, ListRequest, Result, Rotate, SignRequest, Signature, Signer,
    StoreCertificate,
};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing: all checks pass.
    None,
    /// The last key of a page is lost when there is another page.
    LosesAKeyBetweenPages,
    /// Pages never end.
    RepeatsTheLastPage,
    /// Every key opens the first one that there is.
    OpensTheFirstKey,
    /// A digest is signed as if it were a message.
    HashesTwice,
    /// Deadlines are not looked at.
    IgnoresDeadlines,
    /// A name that is taken is made free first.
    ReplacesKeys,
    /// One algorithm is missing.
    LacksAnAlgorithm,
    /// Keys can not be generated.
    LacksAnAbility,
    /// A key that is not there is an internal error.
    WrongKindOfError,
    /// Deleting does nothing.
    KeepsDeletedKeys,
    /// A new version replaces the old one.
    ForgetsOldVersions,
    /// Certificates are not kept.
    DropsCertificates,
    /// Signing panics.
    Panics,
    /// The health of a key is good, whatever became of the key.
    IsAlwaysHealthy,
}

/// A good backend with one thing broken.
struct Broken {
    inner: Arc<dyn Backend>,
    fault: Fault,
}

impl Backend for Broken {
    fn describe(&self) -> BoxFuture<'_, Result<BackendInfo>> {
        self.inner.describe()
    }

    fn list(&self, request: ListRequest) -> BoxFuture<'_, Result<KeyPage>> {
        Box::pin(async move {
            let token = request.page_token.clone();
            let mut page = self.inner.list(request).await?;
            match self.fault {
                Fault::LosesAKeyBetweenPages if page.next.is_some() => drop(page.keys.pop()),
                Fault::RepeatsTheLastPage if page.next.is_none() && token.is_some() => page.next = token,
                _ => {}
            }
            Ok(page)
        })
    }

    fn open<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<Arc<dyn Signer>>> {
        Box::pin(async move {
            let found = self.inner.open(key).await;
            let inner = match self.fault {
                Fault::WrongKindOfError => found.map_err(|e| Error::internal(e.what()))?,
                Fault::OpensTheFirstKey => {
                    found?;
                    let first = self.inner.list(ListRequest::default()).await?.keys.swap_remove(0);
                    self.inner.open(&KeySelector::Name(first.name)).await?
                }
                _ => found?,
            };
            let mut info = inner.info().clone();
            if self.fault == Fault::LacksAnAlgorithm {
                info.algorithms.pop();
            }
            Ok(Arc::new(BrokenSigner { inner, info, fault: self.fault }) as Arc<dyn Signer>)
        })
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        self.inner.health()
    }

    fn generate(&self) -> Option<&dyn Generate> {
        (self.fault != Fault::LacksAnAbility).then_some(self)
    }

    fn import(&self) -> Option<&dyn Import> {
        Some(self)
    }

    fn delete(&self) -> Option<&dyn Delete> {
        Some(self)
    }

    fn rotate(&self) -> Option<&dyn Rotate> {
        Some(self)
    }

    fn store_certificate(&self) -> Option<&dyn StoreCertificate> {
        Some(self)
    }
}

impl Broken {
    async fn make_room(&self, name: &KeyName) {
        if self.fault == Fault::ReplacesKeys {
            let _ = self.inner.delete().unwrap().delete(&KeySelector::Name(name.clone())).await;
        }
    }
}

impl Generate for Broken {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            self.make_room(&request.name).await;
            self.inner.generate().unwrap().generate(request).await
        })
    }
}

impl Import for Broken {
    fn import(&self, request: ImportRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            self.make_room(&request.name).await;
            self.inner.import().unwrap().import(request).await
        })
    }
}

impl Delete for Broken {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.fault == Fault::KeepsDeletedKeys {
                return self.inner.open(key).await.map(drop);
            }
            self.inner.delete().unwrap().delete(key).await
        })
    }
}

impl Rotate for Broken {
    fn rotate<'a>(&'a self, name: &'a KeyName) -> BoxFuture<'a, Result<KeyInfo>> {
        Box::pin(async move {
            let before = self.inner.open(&KeySelector::Name(name.clone())).await?.info().name.clone();
            let rotated = self.inner.rotate().unwrap().rotate(name).await?;
            if self.fault == Fault::ForgetsOldVersions {
                self.inner.delete().unwrap().delete(&KeySelector::Name(before)).await?;
            }
            Ok(rotated)
        })
    }
}

impl StoreCertificate for Broken {
    fn store_certificate<'a>(
        &'a self,
        key: &'a KeySelector,
        certificate: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.fault == Fault::DropsCertificates {
                return self.inner.open(key).await.map(drop);
            }
            self.inner.store_certificate().unwrap().store_certificate(key, certificate).await
        })
    }
}

struct BrokenSigner {
    inner: Arc<dyn Signer>,
    info: KeyInfo,
    fault: Fault,
}

impl Signer for BrokenSigner {
    fn info(&self) -> &KeyInfo {
        &self.info
    }

    fn sign(&self, request: SignRequest) -> BoxFuture<'_, Result<Signature>> {
        let request = match (self.fault, request.input()) {
            (Fault::HashesTwice, signer_core::Input::Digest(digest)) => {
                SignRequest::message(request.algorithm(), digest.as_bytes().to_vec())
            }
            (Fault::IgnoresDeadlines, _) => request.deadline(None),
            (Fault::Panics, _) => panic!("broken on purpose"),
            _ => request,
        };
        self.inner.sign(request)
    }

    fn health(&self) -> BoxFuture<'_, Result<()>> {
        if self.fault == Fault::IsAlwaysHealthy {
            return Box::pin(async { Ok(()) });
        }
        self.inner.health()
    }
}

struct BrokenFixture {
    inner: Direct<Software>,
    fault: Fault,
}

impl Fixture for BrokenFixture {
    fn profile(&self) -> Profile {
        self.inner.engine().profile()
    }

    fn backend(&self) -> Arc<dyn Backend> {
        Arc::new(Broken { inner: self.inner.backend(), fault: self.fault })
    }

    fn restart(&self, pin: PinSetup) -> BoxFuture<'_, Result<Arc<dyn Backend>>> {
        Box::pin(async move {
            self.inner.restart(pin).await?;
            Ok(self.backend())
        })
    }
}

/// Which check a fault must not pass.
const BITES: [(Fault, &str); 15] = [
    (Fault::LosesAKeyBetweenPages, "pages_lose_and_repeat_nothing"),
    (Fault::RepeatsTheLastPage, "pages_lose_and_repeat_nothing"),
    (Fault::OpensTheFirstKey, "two_keys_are_two_keys"),
    (Fault::HashesTwice, "every_algorithm_signs"),
    (Fault::HashesTwice, "empty_messages"),
    (Fault::IgnoresDeadlines, "a_deadline_in_the_past"),
    (Fault::ReplacesKeys, "a_name_is_taken_once"),
    (Fault::LacksAnAlgorithm, "every_algorithm_signs"),
    (Fault::LacksAnAbility, "offers_exactly_its_abilities"),
    (Fault::WrongKindOfError, "unknown_keys_are_not_found"),
    (Fault::KeepsDeletedKeys, "deleted_keys_are_gone"),
    (Fault::ForgetsOldVersions, "old_versions_still_sign"),
    (Fault::DropsCertificates, "certificates_are_kept"),
    (Fault::Panics, "two_keys_are_two_keys"),
    (Fault::IsAlwaysHealthy, "is_healthy"),
];

async fn outcome(fault: Fault, name: &str) -> signer_contract::Outcome {
    let fixture = BrokenFixture { inner: Direct::new(Software::start()).await, fault };
    let check =
        checks().iter().find(|c| c.name == name).unwrap_or_else(|| panic!("there is no check {name}"));
    run(Arc::new(fixture), check).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_is_found() {
    for (fault, check) in BITES {
        let found = outcome(fault, check).await;
        assert!(found.is_err(), "{check} passes a backend with the fault {fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_without_a_fault_passes_the_same_checks() {
    for (_, check) in BITES {
        outcome(Fault::None, check).await.unwrap_or_else(|e| panic!("{check}: {e}"));
    }
}
