// SPDX-License-Identifier: GPL-2.0

//! Servers of the distribution that show their client in an answer or in a log, each in its own
//! format.

use crate::apparmor;
use crate::apparmor::Profiles;
use crate::balancer::Plan;
use crate::module;
use crate::net;
use crate::net::Net;
use crate::programs::table;
use crate::programs::Program;
use crate::programs::Running;
use crate::runner::cases;
use crate::runner::skip;
use crate::runner::Case;

/// Servers that are small, or that no other test covers.
pub const CASES: &[Case] = cases![Unloaded:
    apache_logs_the_client_with_the_module_and_the_balancer_without,
    haproxy_sees_the_client_with_the_module_and_the_balancer_without,
    sshd_logs_the_client_with_the_module_and_the_balancer_without,
    ssh_login_is_told_the_client_with_the_module_and_the_balancer_without,
    redis_lists_the_client_with_the_module_and_the_balancer_without,
    apparmor_names_the_client_with_the_module_and_the_balancer_without,
    asyncio_sees_the_client_with_the_module_and_the_balancer_without,
    go_sees_the_client_with_the_module_and_the_balancer_without,
];

/// Servers that need the larger image.
pub const MORE: &[Case] = cases![Unloaded:
    postgresql_shows_the_client_with_the_module_and_the_balancer_without,
    node_sees_the_client_with_the_module_and_the_balancer_without,
    java_logs_the_client_with_the_module_and_the_balancer_without,
    caddy_sees_the_client_with_the_module_and_the_balancer_without,
];

#[track_caller]
fn check(program: &Program) {
    check_on(&Net::with_ports(&Plan::dpvs(), &program.ports()), program);
}

/// Makes the same visits without the module, with it, and without it again.
#[track_caller]
pub fn check_on(net: &Net, program: &Program) {
    let running = Running::start(program, net);
    all_see_the_balancer(program, &running);
    module::load();
    for visit in program.visits() {
        let visited = running.receive(visit);
        let seen = visited.seen;
        match program.expected(visit, visited.client) {
            Some(client) => {
                assert_eq!(seen.address, client.ip(), "{visit:?}");
                assert_eq!(
                    seen.port.unwrap_or(client.port()),
                    client.port(),
                    "{visit:?}"
                );
            }
            None => assert!(net::is_local_address(seen.address), "{visit:?}: {seen:?}"),
        }
    }
    net.wait_for_no_records();
    module::unload();
    all_see_the_balancer(program, &running);
}

#[track_caller]
fn all_see_the_balancer(program: &Program, running: &Running<'_>) {
    for visit in program.visits() {
        let seen = running.receive(visit).seen;
        assert!(net::is_local_address(seen.address), "{visit:?}: {seen:?}");
    }
}

fn apache_logs_the_client_with_the_module_and_the_balancer_without() {
    check(&table::APACHE);
}

fn haproxy_sees_the_client_with_the_module_and_the_balancer_without() {
    check(&table::HAPROXY);
}

fn sshd_logs_the_client_with_the_module_and_the_balancer_without() {
    check(&table::SSHD);
}

fn ssh_login_is_told_the_client_with_the_module_and_the_balancer_without() {
    check(&table::SSH_LOGIN);
}

fn redis_lists_the_client_with_the_module_and_the_balancer_without() {
    check(&table::REDIS);
}

/// AppArmor decides the same with and without the module, since its rules have no addresses.
fn apparmor_names_the_client_with_the_module_and_the_balancer_without() {
    if !apparmor::asks_for_peers() {
        skip("AppArmor of this kernel does not ask for peers");
    }
    let _profiles = Profiles::load();
    check(&table::CONFINED);
}

fn asyncio_sees_the_client_with_the_module_and_the_balancer_without() {
    check(&table::ASYNCIO);
}

fn go_sees_the_client_with_the_module_and_the_balancer_without() {
    check(&table::GO);
}

fn postgresql_shows_the_client_with_the_module_and_the_balancer_without() {
    check(&table::POSTGRESQL);
}

fn node_sees_the_client_with_the_module_and_the_balancer_without() {
    check(&table::NODE);
}

fn java_logs_the_client_with_the_module_and_the_balancer_without() {
    check(&table::JAVA);
}

fn caddy_sees_the_client_with_the_module_and_the_balancer_without() {
    check(&table::CADDY);
}
