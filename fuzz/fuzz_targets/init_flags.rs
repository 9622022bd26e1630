//! Flags of `weft-init`, one a line in the order of its help: checked or refused with a reason, and lists mean the same
//! when they are written again.
#![no_main]

use clap::Parser;
use libfuzzer_sys::fuzz_target;
use weft_init::config::cidr::{self, Cidr};
use weft_init::config::interface;
use weft_init::config::ports::PortList;
use weft_init::config::{Config, Flags, HEALTH_PORT};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    flags: Flags,
}

fn flags(text: &str) -> Flags {
    let mut flags = Command::parse_from(["weft-init"]).flags;
    let fields = [
        &mut flags.backend,
        &mut flags.outbound_port,
        &mut flags.inbound_port,
        &mut flags.dns_port,
        &mut flags.proxy_uid,
        &mut flags.proxy_gid,
        &mut flags.include_inbound_ports,
        &mut flags.skip_inbound_ports,
        &mut flags.include_outbound_ports,
        &mut flags.skip_outbound_ports,
        &mut flags.include_outbound_cidrs,
        &mut flags.skip_outbound_cidrs,
        &mut flags.exclude_interfaces,
        &mut flags.capture_dns,
        &mut flags.ipv6,
    ];
    for (field, line) in fields
        .into_iter()
        .zip(text.split('\n'))
        .filter(|(_, line)| *line != "=")
    {
        *field = line.into();
    }
    flags
}

fuzz_target!(|text: &str| {
    match Config::check(&flags(text)) {
        Ok(config) => {
            assert!(config.skip_inbound_ports.contains(HEALTH_PORT));
            assert!(config.proxy_uid != 0 && config.proxy_gid != 0);
        }
        Err(mistakes) => assert!(!mistakes.is_empty()),
    }
    if let Ok(ports) = PortList::parse(text) {
        let written = ports.to_string();
        assert_eq!(
            PortList::parse(&written),
            Ok(ports),
            "{text} was written as {written}"
        );
    }
    if let Ok(cidr) = Cidr::parse(text) {
        assert!(cidr.contains(cidr.address()));
        assert_eq!(Cidr::parse(&cidr.to_string()), Ok(cidr));
    }
    let _ = (cidr::parse_list(text), interface::parse_list(text));
});
