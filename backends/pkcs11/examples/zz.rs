use signer_core::*; use std::sync::Arc; use std::time::*;
#[global_allocator] static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
struct P; impl PinSource for P { fn lease<'a>(&'a self,_:&'a PinPrompt)->BoxFuture<'a,Result<Box<dyn PinLease>>>{Box::pin(async{Ok(Box::new(L(Pin::new("1234".into()).unwrap())) as Box<dyn PinLease>)})}}
struct L(Pin); impl PinLease for L { fn pin(&self)->&Pin{&self.0} fn may_use_last_try(&self)->bool{false} fn report(self:Box<Self>,_:PinOutcome){} }
fn now<T>(f: impl Future<Output=T>)->T{ let mut f=std::pin::pin!(f); match f.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())){std::task::Poll::Ready(v)=>v,_=>panic!()}}
fn main(){ let c=signer_pkcs11::Pkcs11Config::from_json(serde_json::json!({"module":"/usr/lib/softhsm/libsofthsm2.so","token":"t1"})).unwrap();
 let b=signer_pkcs11::Pkcs11Backend::new(&c,"x",Arc::new(P)).unwrap(); let k=now(b.open(&"a".parse().unwrap())).unwrap();
 let a=SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256); let d=Digest::of(HashAlgorithm::Sha256,b"x");
 for _ in 0..3 { let s=Instant::now(); let mut n=0; while s.elapsed()<Duration::from_millis(1500){ for _ in 0..50 { now(k.sign(SignRequest::digest(a,d).unwrap())).unwrap(); n+=1;} } print!("{:.0}/s ", n as f64/s.elapsed().as_secs_f64()); }
 println!(); }
