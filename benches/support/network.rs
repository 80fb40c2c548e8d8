//! Two network namespaces with a cable between them, and what can be wrong with it. It takes root.

use std::process::{Command, Stdio};

use serde_json::Value;

/// The far end, where upstream is.
pub const FAR_ADDRESS: &str = "10.77.0.2";

const NEAR_ADDRESS: &str = "10.77.0.1/24";

/// The cable, with the same name at both ends.
const DEVICE: &str = "cable";

/// What the cable does to what goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It carries so many kilobits a second, each way.
    Slow(u32),
    /// It loses every tenth packet by chance, each way.
    Loss,
}

/// How the way is taken away, and comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The near end is down, and with it its routes.
    NearEnd,
    /// The far end is down: the carrier is lost.
    FarEnd,
    /// The address is gone.
    Address,
    /// Somewhere on the way everything is dropped, and the kernel hears nothing of it.
    Silent,
}

/// The namespaces; they go when it is dropped.
pub struct Network {
    pub near: String,
    pub far: String,
}

impl Network {
    /// Or why there can be none here.
    pub fn new() -> Result<Self, String> {
        let id = std::process::id();
        let network = Self { near: format!("near-{id}"), far: format!("far-{id}") };
        let (near, far) = (network.near.as_str(), network.far.as_str());
        for netns in [near, far] {
            run("ip", &["netns", "add", netns])?;
            run("ip", &["-n", netns, "link", "set", "lo", "up"])?;
        }
        run("ip", &["-n", near, "link", "add", DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", far])?;
        for (netns, address) in [(near, NEAR_ADDRESS), (far, &format!("{FAR_ADDRESS}/24"))] {
            run("ip", &["-n", netns, "address", "add", address, "dev", DEVICE])?;
            run("ip", &["-n", netns, "link", "set", DEVICE, "up"])?;
            nft(netns, "add table inet faults; add chain inet faults input { type filter hook input priority 0; }")?;
        }
        Ok(network)
    }

    fn both(&self) -> [&str; 2] {
        [&self.near, &self.far]
    }

    /// From now on.
    pub fn suffer(&self, fault: Fault) {
        for netns in self.both() {
            let done = match fault {
                Fault::None => Ok(()),
                Fault::Slow(kbit) => {
                    let rate = format!("{kbit}kbit");
                    // What an access router holds: a little more than a second at 64 kbit/s.
                    let queue = ["root", "tbf", "rate", &rate, "burst", "4kb", "limit", "16kb"];
                    run("tc", &[&["-n", netns, "qdisc", "add", "dev", DEVICE], &queue[..]].concat())
                }
                Fault::Loss => nft(netns, &format!("add rule inet faults input iifname {DEVICE} numgen random mod 10 == 0 drop")),
            };
            done.unwrap();
        }
    }

    /// Takes the way away, or brings it back.
    pub fn set(&self, cut: Cut, is_there: bool) {
        let state = if is_there { "up" } else { "down" };
        let done = match cut {
            Cut::NearEnd => run("ip", &["-n", &self.near, "link", "set", DEVICE, state]),
            Cut::FarEnd => run("ip", &["-n", &self.far, "link", "set", DEVICE, state]),
            Cut::Address => {
                let verb = if is_there { "add" } else { "delete" };
                run("ip", &["-n", &self.near, "address", verb, NEAR_ADDRESS, "dev", DEVICE])
            }
            Cut::Silent if is_there => nft(&self.far, "flush chain inet faults input"),
            Cut::Silent => nft(&self.far, &format!("add rule inet faults input iifname {DEVICE} drop")),
        };
        done.unwrap();
    }

    /// Bytes that left the near end: frames whole, with everything that TCP, IP and ARP add and repeat.
    pub fn sent_bytes(&self) -> f64 {
        let output = Command::new("ip").args(["-n", &self.near, "-s", "-j", "link", "show", "dev", DEVICE]).output().unwrap();
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        super::number(&shown[0]["stats64"]["tx"]["bytes"])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for netns in self.both() {
            let _ = run("ip", &["netns", "delete", netns]);
        }
    }
}

/// `program`, to be run in `netns`.
pub fn in_namespace(netns: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", netns, program]);
    command
}

fn nft(netns: &str, rules: &str) -> Result<(), String> {
    run("ip", &["netns", "exec", netns, "nft", rules])
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let failed = |why: String| Err(format!("{program} {}: {}", arguments.join(" "), why.trim()));
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => failed(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => failed(error.to_string()),
    }
}
