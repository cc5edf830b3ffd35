//! Real processes: a gateway and its db-processes, as children of the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::client::Client;

/// Everything that a test waits for happens within this, also on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A ring on free ports, in a temporary folder. Dropping it kills all of it.
pub(crate) struct Ring {
    pub(crate) size: u16,
    pub(crate) rest_port: u16,
    pub(crate) socket_port: u16,
    /// Of a gateway that is started from now on.
    pub(crate) purge_after: u64,
    /// By place: where the neighbours find a process, and the port on which it listens for them, where they
    /// are not left to it.
    pub(crate) replication: BTreeMap<u16, (SocketAddr, u16)>,
    /// What a db-process that is started from now on has in its environment beside the usual: its place, a
    /// name and a value.
    pub(crate) environment: Vec<(u16, &'static str, PathBuf)>,
    folder: TempDir,
    gateway: Option<Child>,
    processes: Vec<Option<Child>>,
}

pub(crate) const SECRET: &str = "of the test";

impl Ring {
    /// A new ring, ready.
    pub(crate) async fn start(size: u16) -> Self {
        let mut ring = Self::without_processes(size);
        (0..size).for_each(|place| ring.start_process(place));
        ring.until_ready().await;
        ring
    }

    /// A gateway that waits for its db-processes.
    pub(crate) fn without_processes(size: u16) -> Self {
        let mut ring = Self {
            size,
            rest_port: 0,
            socket_port: 0,
            purge_after: 86_400,
            replication: BTreeMap::new(),
            environment: Vec::new(),
            folder: TempDir::new().unwrap(),
            gateway: None,
            processes: (0..size).map(|_| None).collect(),
        };
        ring.start_gateway();
        ring
    }

    /// Starts the gateway; again on the same ports where it ran before.
    pub(crate) fn start_gateway(&mut self) {
        let mut child = self
            .command("gateway")
            .env("REST_PORT", self.rest_port.to_string())
            .env("SOCKET_PORT", self.socket_port.to_string())
            .env("DB_PROCESSES", self.size.to_string())
            .env("PURGE_AFTER", self.purge_after.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("gateway started")).unwrap();
        self.rest_port = port(&line, " rest=");
        self.socket_port = port(&line, " socket=");
        let mut log = File::create(self.folder.path().join("gateway.out")).unwrap();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| writeln!(log, "{line}").unwrap());
        });
        self.gateway = Some(child);
    }

    pub(crate) fn start_process(&mut self, place: u16) {
        let name = format!("db-{place}");
        let log =
            File::options().create(true).append(true).open(self.folder.path().join(format!("{name}.out")));
        let mut command = self.command("db-process");
        if let Some((address, port)) = self.replication.get(&place) {
            command.env("REPLICATION_ADDRESS", address.to_string()).env("REPLICATION_PORT", port.to_string());
        }
        let child = command
            .env("SOCKET_SERVER_URL", format!("ws://127.0.0.1:{}", self.socket_port))
            .env("DB_INSTANCE_ID", name)
            .env("DATA_DIR", self.data_dir(place))
            .envs(
                self.environment.iter().filter(|(of, ..)| *of == place).map(|(_, name, value)| (name, value)),
            )
            .stdout(log.unwrap())
            .spawn()
            .unwrap();
        self.processes[usize::from(place)] = Some(child);
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corro"));
        command
            .arg(subcommand)
            .env_clear()
            .env("CLUSTER_SECRET", SECRET)
            .env("ALLOW_ANONYMOUS", "true")
            .env("LOG_DIR", self.folder.path().join("logs"))
            .env("RUST_LOG", "info")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn data_dir(&self, place: u16) -> PathBuf {
        self.folder.path().join(format!("data-{place}"))
    }

    /// `kill -9`, and waits until it is dead.
    pub(crate) fn kill(&mut self, place: u16) {
        let mut child = self.processes[usize::from(place)].take().expect("the process runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks one to stop, waits, and says how long it took.
    pub(crate) fn stop(&mut self, place: u16) -> Duration {
        let start = Instant::now();
        self.signal(place, Signal::TERM);
        let mut child = self.processes[usize::from(place)].take().expect("the process runs");
        assert!(child.wait().unwrap().success(), "a process that is asked to stop ends well");
        start.elapsed()
    }

    pub(crate) fn kill_gateway(&mut self) {
        let mut child = self.gateway.take().expect("the gateway runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn signal_gateway(&self, signal: Signal) {
        let gateway = self.gateway.as_ref().expect("the gateway runs");
        kill_process(Pid::from_child(gateway), signal).unwrap();
    }

    pub(crate) fn signal(&self, place: u16, signal: Signal) {
        kill_process(Pid::from_child(self.child(place)), signal).unwrap();
    }

    /// Asks everybody to stop, waits, and says how long it took.
    pub(crate) fn stop_all(&mut self) -> Duration {
        let start = Instant::now();
        let children: Vec<Child> =
            self.processes.iter_mut().filter_map(Option::take).chain(self.gateway.take()).collect();
        for child in &children {
            kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        }
        for mut child in children {
            assert!(child.wait().unwrap().success(), "a process that is asked to stop ends well");
        }
        start.elapsed()
    }

    pub(crate) fn is_running(&mut self, place: u16) -> bool {
        self.processes[usize::from(place)].as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    /// Waits until a process ends by itself, and says how.
    pub(crate) async fn until_exited(&mut self, place: u16) -> ExitStatus {
        let start = Instant::now();
        loop {
            let child = self.processes[usize::from(place)].as_mut().expect("the process was started");
            if let Some(status) = child.try_wait().unwrap() {
                self.processes[usize::from(place)] = None;
                return status;
            }
            assert!(start.elapsed() < DEADLINE, "it does not end\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a process has written that.
    pub(crate) async fn until_says(&self, place: u16, what: &str) {
        let start = Instant::now();
        while !self.output_of(place).contains(what) {
            assert!(start.elapsed() < DEADLINE, "it does not say {what:?}\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that a process wrote.
    pub(crate) fn output_of(&self, place: u16) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("db-{place}.out"))).unwrap()
    }

    /// All that the gateway wrote since it was started last.
    pub(crate) fn gateway_output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("gateway.out")).unwrap()
    }

    fn child(&self, place: u16) -> &Child {
        self.processes[usize::from(place)].as_ref().expect("the process runs")
    }

    /// Process ids of the gateway and of the db-processes.
    pub(crate) fn pids(&self) -> (u32, Vec<u32>) {
        let gateway = self.gateway.as_ref().expect("the gateway runs").id();
        (gateway, (0..self.size).map(|place| self.child(place).id()).collect())
    }

    pub(crate) async fn client(&self) -> Client {
        Client::new(self.rest_port)
    }

    /// Waits until every partition takes reads and writes and has an up-to-date replica.
    pub(crate) async fn until_ready(&self) {
        self.until("the ring is whole", |cluster| {
            cluster["ready"] == true
                && cluster["partitions"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|partition| partition["waiting_for"].is_null())
        })
        .await;
        let mut client = self.client().await;
        let ready = client.send(hyper::Method::GET, "/health/ready", None).await;
        assert_eq!(ready.status, StatusCode::OK);
    }

    /// Waits until `/api/cluster` is as described.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let mut client = self.client().await;
        let start = Instant::now();
        loop {
            let cluster = client.cluster().await;
            if holds(&cluster) {
                return;
            }
            if start.elapsed() > DEADLINE {
                panic!("waited in vain until {what}: {cluster:#}\n{}", self.logs());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What the processes wrote, for the message of a test that fails.
    pub(crate) fn logs(&self) -> String {
        let names = (0..self.size).map(|place| format!("db-{place}.out")).chain(["gateway.out".to_owned()]);
        let read = |name: String| {
            let text = std::fs::read_to_string(self.folder.path().join(&name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n"))
        };
        names.map(read).collect()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for mut child in self.processes.iter_mut().filter_map(Option::take).chain(self.gateway.take()) {
            // It may be dead already, as the test wanted it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn port(line: &str, field: &str) -> u16 {
    let address = line.split(field).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    address.rsplit(':').next().unwrap().parse().unwrap()
}
