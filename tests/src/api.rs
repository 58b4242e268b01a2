//! A node's API, asked as a program asks it.

use std::process::Command;

use serde_json::Value;

use crate::Swarm;

impl Swarm {
    /// What a node's API has at `path`.
    ///
    /// # Panics
    /// When curl cannot be run, or the answer is no JSON.
    #[must_use]
    pub fn api(&self, node: u8, path: &str) -> Value {
        self.request(node, "GET", path, &Value::Null)
    }

    /// What a node's API answers to a request; nothing where it says nothing.
    ///
    /// # Panics
    /// When curl cannot be run, or the answer is no JSON.
    pub fn request(&self, node: u8, method: &str, path: &str, body: &Value) -> Value {
        let mut curl = Command::new("curl");
        curl.arg("-sS").arg("--unix-socket").arg(self.lab.socket(node)).args(["-X", method]);
        if !body.is_null() {
            curl.args(["-d", &body.to_string()]);
        }
        let said = curl.arg(format!("http://node/v1.47{path}")).output().expect("curl runs").stdout;
        if said.is_empty() { Value::Null } else { serde_json::from_slice(&said).expect("an answer") }
    }
}
