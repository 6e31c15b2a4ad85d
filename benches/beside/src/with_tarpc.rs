//! tarpc over a Unix socket, its messages encoded by postcard, as urpc's are.

use std::io;
use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tarpc::serde_transport::unix;
use tarpc::server::{BaseChannel, Channel};
use tarpc::{client, context};
use tokio_serde::{Deserializer, Serializer};

use crate::common::child::ready;
use crate::common::contest::take_place;
use crate::common::tokio::{Client, runtime};

#[tarpc::service]
trait Calls {
    async fn null();
}

/// The client.
#[derive(Clone)]
pub struct Caller(CallsClient);

impl Client for Caller {
    async fn connect(name: &str) -> Self {
        let connected = unix::connect(name, || Postcard).await;
        let transport = connected.expect("the server is ready");
        Self(CallsClient::new(client::Config::default(), transport).spawn())
    }

    async fn call(&mut self) {
        let called = self.0.null(context::current()).await;
        called.expect("the server answers");
    }
}

#[derive(Clone)]
struct Server;

impl Calls for Server {
    async fn null(self, _: context::Context) {}
}

/// The server's process.
pub fn server_child(name: &str, cpu: &str) {
    take_place(cpu);
    runtime().block_on(async {
        let listener = unix::listen(name, || Postcard).await;
        let mut incoming = listener.expect("a socket");
        ready();
        let transport = incoming.next().await.expect("a client");
        let channel = BaseChannel::with_defaults(transport.expect("a client"));
        let replies = channel.execute(Server.serve());
        let spawned = replies.for_each(|reply| async {
            tokio::spawn(reply);
        });
        spawned.await;
    });
}

/// The encoding.
struct Postcard;

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> io::Result<Bytes> {
        let bytes = postcard::to_allocvec(item).map_err(io::Error::other)?;
        Ok(bytes.into())
    }
}

impl<T: DeserializeOwned> Deserializer<T> for Postcard {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<T> {
        postcard::from_bytes(bytes).map_err(io::Error::other)
    }
}
