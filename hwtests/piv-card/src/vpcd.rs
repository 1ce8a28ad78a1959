//! The wire to vsmartcard's virtual reader: two bytes of length, then an APDU or one byte that is about power.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    path::PathBuf,
};

use rustix::{
    net::sockopt::set_tcp_quickack,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// One slot of a virtual reader: where a card is put in.
#[derive(Clone, Debug)]
pub struct Slot {
    address: SocketAddr,
    namespace: Option<PathBuf>,
}

impl Slot {
    /// A slot of a reader that listens on this address of this machine.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, namespace: None }
    }

    /// A slot in the network namespace that this file of `/proc/PID/ns` names.
    pub fn inside(address: SocketAddr, namespace: PathBuf) -> Self {
        Self { address, namespace: Some(namespace) }
    }

    /// Takes the calling thread to where the reader listens. It stays there.
    pub(crate) fn enter(&self) -> io::Result<()> {
        if let Some(path) = &self.namespace {
            let namespace = File::open(path)?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        Ok(())
    }

    pub(crate) fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What the reader wants.
pub(crate) enum Request {
    PowerOff,
    PowerOn,
    Reset,
    Atr,
    Apdu(Vec<u8>),
}

pub(crate) fn receive(mut stream: &TcpStream) -> io::Result<Request> {
    let mut length = [0; 2];
    // The reader writes the length and the message one by one, and waits in between until the first has been acknowledged:
    // at once, and not after the kernel's usual 40 ms. The kernel forgets this each time.
    set_tcp_quickack(stream, true)?;
    stream.read_exact(&mut length)?;
    set_tcp_quickack(stream, true)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(match message[..] {
        [0] => Request::PowerOff,
        [1] => Request::PowerOn,
        [2] => Request::Reset,
        [4] => Request::Atr,
        _ => Request::Apdu(message),
    })
}

pub(crate) fn send(mut stream: &TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())
}
