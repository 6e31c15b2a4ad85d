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

/// The child. It has no processor of its own, and runs on those that its caller lends.
#[urpc::main(processors = 0)]
async fn server() -> urpc::Result<()> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let server = urpc::serve_fd(socket).add(CalcServer::new(Sums)).bind()?;
    server.run().await // until the channel is closed
}

#[urpc::main]
async fn client() -> urpc::Result<()> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(OwnedFd::from(theirs))
        .spawn()?;
    let calc = CalcClient::on(&urpc::connect_fd(ours).await?);

    let sum = urpc::spawn(calc.add(2, 3)); // runs while this task goes on
    println!("1 / 0: {:?}", calc.div(1, 0).await?);
    println!("2 + 3: {}", sum.await??);
    let failed = urpc::call::<i64>(calc.peer(), "Calc.mul", (2i64, 3i64)).await;
    println!("2 · 3: {}", failed.expect_err("nobody offers it"));

    drop(calc); // closes the channel
    urpc::unblock(move || child.wait()).await?;
    Ok(())
}

fn main() -> urpc::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("serve") => server(),
        _ => client(),
    }
}
