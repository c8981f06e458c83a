// SPDX-License-Identifier: GPL-2.0

//! Real servers, unmodified, write their clients' addresses into their logs.

use crate::module;
use crate::net::Net;
use crate::runner::cases;
use crate::runner::Case;
use crate::site;
use crate::site::Site;
use crate::site::Visit;

pub const CASES: &[Case] = cases![Unloaded:
    nginx_logs_the_client_with_the_module_and_the_balancer_without,
    python_logs_the_client_with_the_module_and_the_balancer_without,
];

/// Makes the same visits without the module, with it, and without it again.
#[track_caller]
fn check(net: &Net, site: &Site<'_>, visits: &[Visit]) {
    all_log_the_balancer(site, visits);
    module::load();
    for visit in visits {
        let line = site.receive(*visit);
        let logged = site::client_in(&line);
        match visit.client {
            Some(client) => assert_eq!(logged, client, "{visit:?}"),
            None => assert_balancer(visit, logged),
        }
    }
    net.wait_for_no_records();
    module::unload();
    all_log_the_balancer(site, visits);
}

#[track_caller]
fn all_log_the_balancer(site: &Site<'_>, visits: &[Visit]) {
    for visit in visits {
        let line = site.receive(*visit);
        assert_balancer(visit, site::client_in(&line));
    }
}

#[track_caller]
fn assert_balancer(visit: &Visit, logged: &str) {
    assert!(
        site::is_balancer(logged),
        "{logged} is not the balancer's: {visit:?}"
    );
}

fn nginx_logs_the_client_with_the_module_and_the_balancer_without() {
    let net = Net::for_site();
    check(&net, &Site::nginx(&net), &site::NGINX_VISITS);
}

fn python_logs_the_client_with_the_module_and_the_balancer_without() {
    let net = Net::for_site();
    check(&net, &Site::python(&net), &site::PYTHON_VISITS);
}
