//! Which gateway a command talks to, with which token, and for how long.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use crate::client::{Client, Endpoint};
use crate::demo;

/// The default of `--patience`, in seconds.
const PATIENCE: u64 = 60;

// Not doc comments: they would be shown as the help of the command.

#[derive(Args, Debug)]
pub(crate) struct GatewayArgs {
    /// Address of the gateway, http or https, with the path below which a proxy has it
    #[arg(long, default_value = "http://localhost:3001", value_name = "URL", global = true)]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) token: Credentials,
    /// Give up after so many seconds without an answer, or without progress
    /// [default: 60; of a check 600]
    #[arg(long, value_name = "SECONDS", global = true,
        value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) patience: Option<u64>,
}

impl GatewayArgs {
    /// # Errors
    /// Where the address or the token cannot be used.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::patient(self.token.endpoint(&self.url).await?, self.patience()).that_says())
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience.unwrap_or(PATIENCE))
    }
}

#[derive(Args, Debug)]
pub(crate) struct Credentials {
    /// API token; the first, where there are several, separated by commas. Others can see a command line:
    /// better the variable, or a file
    #[arg(
        long,
        alias = "api-token",
        env = "API_TOKEN",
        hide_env_values = true,
        value_name = "TEXT",
        global = true
    )]
    token: Option<String>,
    /// File with the API token [default: that of the demo in .corro, if it has that gateway]
    #[arg(long, env = "API_TOKEN_FILE", value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
    /// File with the certificates, as PEM, that a gateway with https is trusted by [default: those that the
    /// system trusts]
    #[arg(long, env = "CORRO_CACERT", value_name = "FILE", global = true)]
    cacert: Option<PathBuf>,
}

impl Credentials {
    /// The token that is given.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub(crate) fn given(&self) -> anyhow::Result<Option<String>> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(Some(token.clone())),
            (None, Some(file)) => {
                let read = std::fs::read_to_string(file);
                read.map(Some).with_context(|| format!("--token-file: {}", file.display()))
            }
            (None, None) => Ok(None),
        }
    }

    /// The gateway at that address, with the token that is given, or else with that of the demo in this
    /// folder: if it is that gateway, and to no other one.
    ///
    /// # Errors
    /// Where the address or the token cannot be used.
    pub(crate) async fn endpoint(&self, url: &str) -> anyhow::Result<Endpoint> {
        let endpoint = Endpoint::parse(url, None)?.trusting(self.cacert.as_deref())?;
        let token = match self.given()? {
            Some(token) => Some(token),
            None if endpoint.is_local() => match endpoint.port() {
                Some(port) => demo::token_of(port).await,
                None => None,
            },
            None => None,
        };
        endpoint.with_token(token.as_deref())
    }
}
