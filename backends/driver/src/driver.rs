//! The driver's side: a loop that serves a backend over file descriptor 0.

use std::{
    collections::{HashMap, VecDeque},
    io::Write,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, atomic::AtomicU64},
    time::Duration,
};

use signer_core::{Ability, Backend, Error, Event, PinSource, Result, Signer};
use zeroize::Zeroize;

use crate::{PROTOCOL_VERSION, convert, frame, pb};

mod pins;
mod serve;
mod spin;

use pins::LinkPins;
use spin::Spin;

/// What the daemon says when it starts a driver.
pub struct Setup {
    /// Name of the backend in the daemon's configuration, for messages to people.
    pub backend: String,
    /// The backend's table of the configuration, without what the daemon handles itself.
    pub options: serde_json::Value,
    /// Where PINs come from.
    pub pins: Arc<dyn PinSource>,
}

/// Serves a backend to the daemon that started this process: the whole `main` of a driver program.
///
/// `build` is called once, when the daemon has said how the backend is configured. It should succeed although the
/// device is not there; an error from it is told to the daemon and ends the driver. Each method of the backend is
/// called on a thread that may block.
///
/// Returns when the daemon is gone. The process also dies with its parent, and never leaves a core dump.
pub fn run(build: impl FnOnce(Setup) -> Result<Arc<dyn Backend>>) -> ExitCode {
    let stream = match take_socket() {
        Ok(stream) => stream,
        Err(e) => {
            eprintln!("this program is started by signerd, with a socket as its standard input: {e}");
            return ExitCode::from(2);
        }
    };
    harden();
    let link = Arc::new(Link::new(stream));
    match handshake(&link, build) {
        Ok((backend, threads)) => serve::run(&link, &backend, threads),
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

/// Takes the socket off file descriptor 0 and leaves /dev/null there, so that no library reads from it.
fn take_socket() -> std::io::Result<UnixStream> {
    let stdin = std::io::stdin();
    rustix::net::sockopt::socket_type(stdin.as_fd())?;
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(stdin.as_fd(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(UnixStream::from(socket))
}

/// Dies with the daemon; leaves no core dump, and lets nobody attach: PINs are in this memory.
fn harden() {
    use rustix::process as p;
    let _ = p::set_parent_process_death_signal(Some(p::Signal::KILL));
    let _ = p::set_dumpable_behavior(p::DumpableBehavior::NotDumpable);
    let _ = p::setrlimit(p::Resource::Core, p::Rlimit { current: Some(0), maximum: Some(0) });
}

fn handshake(
    link: &Arc<Link>,
    build: impl FnOnce(Setup) -> Result<Arc<dyn Backend>>,
) -> Result<(Arc<dyn Backend>, usize), String> {
    let first = link.next_request().ok_or("the daemon closed the socket")?;
    let Some(pb::to_driver::Body::Configure(configure)) = first.body else {
        return Err("the daemon's first message is not Configure".into());
    };
    if configure.version != PROTOCOL_VERSION {
        let configured = pb::Configured { version: PROTOCOL_VERSION, abilities: Vec::new() };
        link.answer(first.id, pb::from_driver::Body::Configured(configured));
        return Err(format!(
            "the daemon speaks protocol version {}, this driver {PROTOCOL_VERSION}",
            configure.version
        ));
    }
    lock(&link.input).spin = Spin::new(Duration::from_micros(configure.spin_us.into()));
    let threads = configure.threads.clamp(1, 64) as usize;
    let built = serde_json::from_str(&configure.options_json)
        .map_err(|e| Error::bad_request("the options of the backend are not JSON").vendor(e))
        .and_then(|options| {
            let pins: Arc<dyn PinSource> = Arc::new(LinkPins::new(link.clone()));
            build(Setup { backend: configure.backend, options, pins })
        });
    match built {
        Ok(backend) => {
            let abilities = backend.abilities().into_iter().filter(|a| *a != Ability::Watch);
            let configured = pb::Configured {
                version: PROTOCOL_VERSION,
                abilities: abilities.map(|a| a.name().to_owned()).collect(),
            };
            if let Some(watch) = backend.watch() {
                let link = link.clone();
                watch.watch(Arc::new(move |event| link.tell(&event)));
            }
            link.answer(first.id, pb::from_driver::Body::Configured(configured));
            Ok((backend, threads))
        }
        Err(error) => {
            link.answer(first.id, pb::from_driver::Body::Error(convert::error_to_pb(&error)));
            Err(error.to_string())
        }
    }
}

/// The socket to the daemon, shared by the threads that serve it.
struct Link {
    stream: UnixStream,
    /// Whoever holds this reads from the socket.
    input: Mutex<Input>,
    /// Answers that wait to be written together.
    output: Mutex<Vec<u8>>,
    /// PIN leases that arrived, by number.
    leases: Mutex<HashMap<u64, pb::PinLease>>,
    lease_arrived: Condvar,
    next_lease: AtomicU64,
    /// Keys by the numbers that the daemon gave them.
    keys: RwLock<HashMap<u32, Arc<dyn Signer>>>,
}

struct Input {
    inbox: frame::Inbox,
    waiting: VecDeque<pb::ToDriver>,
    /// Requests that came with the last read: how many answers are worth a write of their own.
    batch: usize,
    spin: Spin,
    buffer: Box<[u8]>,
}

impl Link {
    fn new(stream: UnixStream) -> Self {
        let input = Input {
            inbox: frame::Inbox::default(),
            waiting: VecDeque::new(),
            batch: 0,
            spin: Spin::new(Duration::ZERO),
            buffer: vec![0; 64 * 1024].into_boxed_slice(),
        };
        Self {
            stream,
            input: Mutex::new(input),
            output: Mutex::default(),
            leases: Mutex::default(),
            lease_arrived: Condvar::new(),
            next_lease: AtomicU64::new(1),
            keys: RwLock::default(),
        }
    }

    /// The next request; reads when none waits. `None` when the daemon is gone.
    fn next_request(&self) -> Option<pb::ToDriver> {
        let mut input = lock(&self.input);
        loop {
            if let Some(request) = input.waiting.pop_front() {
                return Some(request);
            }
            self.read(&mut input)?;
        }
    }

    /// Whether a request waits already.
    fn has_waiting(&self) -> bool {
        self.input.try_lock().is_ok_and(|input| !input.waiting.is_empty())
    }

    /// Blocks for one read and sorts what came. `None` when the daemon is gone or does not speak the protocol.
    fn read(&self, input: &mut Input) -> Option<()> {
        let Input { inbox, waiting, batch, spin, buffer } = input;
        let n = loop {
            match spin.read(&self.stream, buffer) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                other => break other.ok().filter(|n| *n > 0)?,
            }
        };
        inbox.push(&buffer[..n]);
        let before = waiting.len();
        let mut secret = false;
        loop {
            match inbox.next::<pb::ToDriver>() {
                Ok(Some(message)) => match message.body {
                    Some(pb::to_driver::Body::PinLease(lease)) => {
                        secret = true;
                        lock(&self.leases).insert(lease.lease, lease);
                        self.lease_arrived.notify_all();
                    }
                    Some(pb::to_driver::Body::Close(close)) => {
                        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&close.handle);
                    }
                    _ => waiting.push_back(message),
                },
                Ok(None) => break,
                Err(e) => {
                    eprintln!("the daemon does not speak the driver protocol: {e}");
                    return None;
                }
            }
        }
        if secret {
            buffer[..n].zeroize();
            inbox.wipe();
        }
        *batch = waiting.len() - before;
        Some(())
    }

    /// Queues an answer and writes all that is queued.
    fn answer(&self, id: u64, body: pb::from_driver::Body) {
        self.queue(id, body);
        self.flush();
    }

    /// Queues an answer; returns how many bytes wait.
    fn queue(&self, id: u64, body: pb::from_driver::Body) {
        frame::push(&mut lock(&self.output), &pb::FromDriver { id, body: Some(body) });
    }

    /// Writes what is queued. A daemon that is gone is noticed by the next read.
    fn flush(&self) {
        let mut output = lock(&self.output);
        if !output.is_empty() {
            let _ = (&self.stream).write_all(&output);
            output.clear();
            if output.capacity() > 1 << 20 {
                *output = Vec::new();
            }
        }
    }

    fn tell(&self, event: &Event) {
        let what = match event {
            Event::Up => pb::event::What::Up(pb::Done {}),
            Event::Down(error) => pb::event::What::Down(convert::error_to_pb(error)),
            // A PIN is asked for by a lease, and drivers do not run drivers.
            // Told as requests or by the daemon itself.
            Event::PinRequired(_)
            | Event::TouchRequired { .. }
            | Event::TouchEnded { .. }
            | Event::DriverRestarting { .. } => return,
        };
        self.answer(0, pb::from_driver::Body::Event(pb::Event { what: Some(what) }));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a future to its end on this thread, which may block.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = std::pin::pin!(future);
    // Nearly every future is ready at once: no waker is made for those.
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
        return value;
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
