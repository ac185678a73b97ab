//! The binary: configuration from the environment, one line on stdout once it listens, logs on stderr.

#![forbid(unsafe_code)]

use anyhow::Context as _;
use orders::{App, Config, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let config = Config::from_env(|name| std::env::var(name).ok())?;
    let app = App::connect(&config).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(("127.0.0.1", config.port))
        .await
        .with_context(|| format!("cannot listen on port {}", config.port))?;
    announce(&listener)?;
    serve(listener, app, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .await?;
    tracing::info!("stopped");
    Ok(())
}

#[expect(clippy::print_stdout, reason = "with PORT=0 this line is how others learn the port")]
fn announce(listener: &TcpListener) -> anyhow::Result<()> {
    println!("listening on http://{}", listener.local_addr()?);
    Ok(())
}
