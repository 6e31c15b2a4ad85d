//! tonic over a Unix socket: HTTP/2 and protobuf, its service described in `build.rs`.

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::common::child::ready;
use crate::common::contest::take_place;
use crate::common::tokio::{Client, runtime};

mod generated {
    #![allow(unreachable_pub, clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/beside.Calls.rs"));
}

use generated::calls_client::CallsClient;
use generated::calls_server::{Calls, CallsServer};

/// An empty message of protobuf: what is asked, and what is answered.
pub type Nothing = ();

/// The client.
#[derive(Clone)]
pub struct Caller(CallsClient<Channel>);

impl Client for Caller {
    async fn connect(name: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("unix:{name}"));
        let channel = endpoint.expect("a path").connect().await;
        Self(CallsClient::new(channel.expect("the server is ready")))
    }

    async fn call(&mut self) {
        self.0.null(()).await.expect("the server answers");
    }
}

struct Server;

#[tonic::async_trait]
impl Calls for Server {
    async fn null(&self, _: Request<()>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

/// The server's process.
pub fn server_child(name: &str, cpu: &str) {
    take_place(cpu);
    runtime().block_on(async {
        let listener = UnixListener::bind(name).expect("a socket");
        ready();
        let incoming = UnixListenerStream::new(listener);
        let server = tonic::transport::Server::builder().add_service(CallsServer::new(Server));
        let served = server.serve_with_incoming(incoming).await;
        served.expect("it serves");
    });
}
