//! Making and destroying keys.

use std::time::SystemTime;

use signer_core::{
    BoxFuture, Delete, Error, Generate, GenerateRequest, KeyInfo, KeyOrigin, KeyPolicy, KeySelector, KeyType,
    Pin, PinLease, PinOutcome, PinPolicy, Result, TouchPolicy,
};

use crate::{
    TpmBackend, approvals,
    backend::{new_label, not_found},
    connection::{Connection, auth_of},
    fault::Fault,
    key_file::KeyFile,
    login::{self, Attempt, PinMark},
    material::Place,
    policy::{Pcrs, Policy},
    public_area::{Shape, Wanted},
    signing, store,
};

impl Generate for TpmBackend {
    fn generate(&self, request: GenerateRequest) -> BoxFuture<'_, Result<KeyInfo>> {
        Box::pin(async move {
            self.generate_now(&request).await.map_err(|e| self.device.about(e).key(&request.name))
        })
    }
}

impl Delete for TpmBackend {
    fn delete<'a>(&'a self, key: &'a KeySelector) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.delete_now(key).map_err(|e| self.device.about(e).key(key)) })
    }
}

impl TpmBackend {
    async fn generate_now(&self, request: &GenerateRequest) -> Result<KeyInfo> {
        let plan = self.plan(&request.name, request.id.as_deref(), &request.policy, request.key_type)?;
        let lent = self.pin_for_new_key(&plan).await?;
        let made = self.make(
            &plan,
            |c, pin| {
                let policy = plan.policy(c)?;
                let wanted = plan.wanted(policy.as_ref(), None)?;
                let public = wanted.public()?;
                let parent = c.parent(true)?.handle;
                let session = c.session()?;
                let auth = pin.map(auth_of).transpose()?;
                let made = c.with_room(None, |context| {
                    context.execute_with_session(Some(session), |context| {
                        context.create(parent, public.clone(), auth.clone(), None, None, None)
                    })
                })?;
                Ok(plan.file(
                    policy,
                    KeyOrigin::Generated,
                    self.device.config.parent.0,
                    made.out_public,
                    made.out_private,
                ))
            },
            lent.as_deref().map(PinLease::pin),
        );
        self.made(lent, made)
    }

    fn delete_now(&self, selector: &KeySelector) -> Result<()> {
        let key = self.find(selector)?;
        if let Place::Persistent(handle) = key.place {
            return Err(Error::unsupported("delete persistent keys", "the tpm backend").next(format!(
                "it was not made here; `tpm2_evictcontrol -C o -c {handle:#x}` removes it from the TPM for good"
            )));
        }
        let _alone = self.device.store.lock()?;
        if !self.device.store.remove_key(&key.stem)? {
            return Err(not_found());
        }
        self.device.if_connected(|c| c.evict(&key));
        Ok(())
    }

    /// What a new key shall be; refuses what cannot be.
    pub(crate) fn plan(
        &self,
        name: &signer_core::KeyName,
        id: Option<&[u8]>,
        policy: &KeyPolicy,
        key_type: KeyType,
    ) -> Result<Plan> {
        if policy.touch.is_some_and(|touch| touch != TouchPolicy::Never) {
            return Err(Error::unsupported("wait for a touch", "a TPM"));
        }
        if let Some(authority) = &policy.pcr_authority {
            if policy.pcrs.is_none() {
                return Err(
                    Error::bad_request("a PCR authority without PCRs").next("say which PCRs it approves")
                );
            }
            if !approvals::can_be_authority(authority.key_type()) {
                let what = format!("check approvals by a {} key", authority.key_type());
                return Err(Error::unsupported(what, "a TPM").next("use an ECDSA or RSA key"));
            }
        }
        let label = new_label(name, id)?;
        let shape = Shape::of(key_type);
        let types = self.with(|c| Ok(c.capabilities.key_types.clone()))?;
        let shape = shape.filter(|_| types.contains(&key_type)).ok_or_else(|| {
            let names: Vec<_> = types.iter().map(|t| t.name()).collect();
            Error::unsupported(format_args!("hold {key_type} keys"), "the TPM")
                .next(format!("it holds {}", names.join(", ")))
        })?;
        let stem = store::stem(&label);
        if self.device.store.key_id(&stem).is_some() {
            return Err(store::taken());
        }
        Ok(Plan {
            label,
            stem,
            shape,
            pin: policy.pin.unwrap_or(self.device.config.pin_policy.0),
            policy: policy.clone(),
        })
    }

    /// The PIN for a new key that shall have one: it is the PIN of all keys here, so it is tried with one of them first.
    pub(crate) async fn pin_for_new_key(&self, plan: &Plan) -> Result<Option<Box<dyn PinLease>>> {
        if plan.pin == PinPolicy::Never {
            return Ok(None);
        }
        let lease =
            self.device.pins.lease(&login::prompt(&self.device, Some(plan.label.clone()), None)).await?;
        let checked = match login::known(&self.device, lease.pin()) {
            Some(known) => (known, PinOutcome::NotTried),
            None => match self.key_with_pin() {
                Err(e) => (Err(e), PinOutcome::NotTried),
                Ok(None) => (auth_of(lease.pin()).map(drop), PinOutcome::NotTried),
                Ok(Some(key)) => {
                    let attempt = Attempt::new(lease.pin(), lease.may_use_last_try());
                    let result = self.with(|c| signing::trial(c, &key, Some(&attempt)));
                    let outcome = attempt.outcome(&self.device, &result);
                    (result, outcome)
                }
            },
        };
        match checked {
            (Ok(()), _) => Ok(Some(lease)),
            (Err(e), outcome) => {
                lease.report(outcome);
                Err(e)
            }
        }
    }

    /// Makes a key and its file, alone.
    pub(crate) fn make(
        &self,
        plan: &Plan,
        mut work: impl FnMut(&mut Connection, Option<&Pin>) -> Result<KeyFile, Fault>,
        pin: Option<&Pin>,
    ) -> Result<KeyInfo> {
        let _alone = self.device.store.lock()?;
        if self.device.store.key_id(&plan.stem).is_some() {
            return Err(store::taken());
        }
        let file = self.with(|c| work(c, pin))?;
        self.device.store.add_key(&plan.stem, &file.to_text()?)?;
        let key = crate::backend::read_file(&self.device.store, &plan.stem)?
            .ok_or_else(|| Error::internal("a key that was just made is not there").may_have_happened())?;
        self.info(&key)
    }

    /// Reports how a PIN did that a new key was made with.
    pub(crate) fn made(&self, lent: Option<Box<dyn PinLease>>, made: Result<KeyInfo>) -> Result<KeyInfo> {
        if let Some(lease) = lent {
            if made.is_ok() {
                *self.device.opened_with() = PinMark::of(lease.pin());
                lease.report(PinOutcome::Accepted);
            } else {
                login::untried(lease);
            }
        }
        made
    }
}

/// A key that is to be made.
pub(crate) struct Plan {
    pub(crate) label: String,
    pub(crate) stem: String,
    pub(crate) shape: Shape,
    pub(crate) pin: PinPolicy,
    policy: KeyPolicy,
}

impl Plan {
    /// The policy with the registers' values of now.
    pub(crate) fn policy(&self, connection: &mut Connection) -> Result<Option<Policy>, Fault> {
        let Some(selection) = self.policy.pcrs else { return Ok(None) };
        let values = connection.pcr_values(selection)?;
        let pcrs = Pcrs { selection, values, authority: self.policy.pcr_authority.clone() };
        Ok(Some(Policy::new(pcrs, self.pin != PinPolicy::Never)))
    }

    /// How the TPM shall make it.
    pub(crate) fn wanted(
        &self,
        policy: Option<&Policy>,
        imported: Option<signer_core::PublicKey>,
    ) -> Result<Wanted> {
        Ok(Wanted {
            shape: self.shape,
            pin: self.pin != PinPolicy::Never,
            policy: policy.map(Policy::digest).transpose()?.map(Vec::from).unwrap_or_default(),
            imported,
        })
    }

    /// Its file.
    pub(crate) fn file(
        &self,
        policy: Option<Policy>,
        origin: KeyOrigin,
        parent: u32,
        public: tss_esapi::structures::Public,
        private: tss_esapi::structures::Private,
    ) -> KeyFile {
        // A name that is too long for a file's is kept inside.
        let label = crate::file_name::decode(&self.stem).is_none().then(|| self.label.clone());
        KeyFile {
            origin,
            pin: self.pin,
            our_pin: true,
            created: Some(SystemTime::now()),
            label,
            policy,
            parent,
            public,
            private,
        }
    }
}
