//! The API over a backend in memory, to point a client at: `cargo run -p skep-engine --features fake --example fake -- /tmp/fake.sock`,
//! then `docker -H unix:///tmp/fake.sock swarm init`.

use std::error::Error;
use std::path::PathBuf;

use skep_engine::fake::FakeBackend;
use skep_engine::{Listeners, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("expected the path of the socket to make")?;
    let listeners = Listeners { unix: vec![PathBuf::from(path)], tcp: Vec::new(), ..Listeners::default() };
    let server = Server::bind(&listeners).await?;
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for Ctrl-C: {error}");
        }
    };
    server.serve(FakeBackend::new(), interrupted).await?;
    Ok(())
}
