//! Prints the CustomResourceDefinitions of Weft's own kinds as YAML: `cargo run -p weft-k8s --example crds`.

fn main() -> Result<(), serde_yaml::Error> {
    println!("{}", weft_k8s::crd::definitions_yaml()?.trim_end());
    Ok(())
}
