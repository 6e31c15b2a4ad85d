//! A server and a client in one file: the program starts itself once more, calls its child, and ends.
//!
//! ```text
//! cargo run --example calculator
//! ```
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

/// What can be called. Both processes are built from this trait.
#[urpc::service]
trait Calc {
    async fn add(&self, a: i64, b: i64) -> i64;
    async fn div(&self, a: i64, b: i64) -> Result<i64, String>;
}

struct Sums;

impl Calc for Sums {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }
    async fn div(&self, a: i64, b: i64) -> Result<i64, String> {
        a.checked_div(b)
            .ok_or_else(|| format!("{a} / {b} is no number"))
    }
}

/// The child: no processor of its own, so it runs on the one its caller lends. Ends with the channel.
#[urpc::main(processors = 0)]
async fn server() -> urpc::Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let server = urpc::serve_fd(socket).add(CalcServer::new(Sums)).bind()?;
    server.run().await
}

#[urpc::main]
async fn client() -> urpc::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(OwnedFd::from(theirs))
        .spawn()?;
    let peer = urpc::connect_fd(ours).await?;
    let calc = CalcClient::on(&peer);
    // Two calls at once: one donation serves them both.
    let sum = urpc::spawn(calc.add(2, 3));
    let none = calc.div(1, 0).await?;
    println!("2 + 3 = {}; {}", sum.await??, none.unwrap_err());
    println!("1 call failed: {}", failing(&peer).await.unwrap_err());
    println!("{:?}", peer.stats());
    drop((calc, peer)); // closes the channel, which ends the child
    child.wait()?;
    Ok(())
}

/// A procedure the server has not: every error says whether the call can have run.
async fn failing(peer: &urpc::Peer) -> Result<i64, urpc::CallError> {
    urpc::call(peer, "Calc.mul", (2i64, 3i64)).await
}

fn main() -> urpc::Result<()> {
    if std::env::args().nth(1).is_some_and(|role| role == "serve") {
        return server();
    }
    client()
}
