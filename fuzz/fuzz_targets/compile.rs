//! Routes and policies beside a small mesh: they always compile, twice to the same, and all that comes of them reaches the
//! sidecars as it is.
#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weft_k8s::parse::parse;
use weft_k8s::{CompileOptions, Objects, compile};
use weft_model::{Mesh, UnixMillis};
use weft_xds::convert::{Flavour, Resource};

/// Two services with pods behind them.
const MESH: &str = include_str!("compile.yaml");

static FILE: LazyLock<Arc<PathBuf>> = LazyLock::new(|| Arc::new("fuzz.yaml".into()));
static OBJECTS: LazyLock<Objects> = LazyLock::new(|| read(Objects::default(), MESH));
static OPTIONS: LazyLock<CompileOptions> = LazyLock::new(|| CompileOptions {
    trust_domain: "cluster.local".parse().unwrap(),
    cluster_domain: "cluster.local".into(),
});

static BASE: LazyLock<Mesh> = LazyLock::new(|| compile(&OBJECTS, &OPTIONS, None).mesh);

fn read(mut objects: Objects, text: &str) -> Objects {
    for object in parse(&FILE, text, UnixMillis(0)).objects {
        objects.insert(object);
    }
    objects
}

fn arrives<T: Resource + PartialEq + Debug>(value: &T) {
    for flavour in Flavour::ALL {
        let encoded = value.encode(flavour);
        if flavour == Flavour::Weft {
            assert_eq!(T::decode(&value.name(), &encoded).as_ref(), Ok(value));
        }
    }
}

/// Those that are not as they are without the input.
fn new_arrive<K: Ord, T: Resource + PartialEq + Debug>(
    new: &BTreeMap<K, Arc<T>>,
    base: &BTreeMap<K, Arc<T>>,
) {
    for (key, value) in new {
        if base
            .get(key)
            .is_none_or(|before| !Arc::ptr_eq(before, value))
        {
            arrives(&**value);
        }
    }
}

fuzz_target!(|text: &str| {
    let objects = read(OBJECTS.clone(), text);
    let compiled = compile(&objects, &OPTIONS, Some(&BASE));
    let mesh = &compiled.mesh;
    new_arrive(&mesh.destinations, &BASE.destinations);
    new_arrive(&mesh.clusters, &BASE.clusters);
    new_arrive(&mesh.endpoints, &BASE.endpoints);
    new_arrive(&mesh.names, &BASE.names);
    for routes in mesh.routes.values() {
        arrives(&*routes.any);
        routes.by_namespace.values().for_each(|v| arrives(&**v));
    }
    for workload in mesh.workloads.values() {
        workload.ports.values().for_each(arrives);
    }
    let again = compile(&objects, &OPTIONS, None);
    assert_eq!((&again.mesh, &again.problems), (mesh, &compiled.problems));
});
