//! RabbitMQ.

use testenv_api::Lease;

use super::{Subject, same};
use crate::Amqp;

pub(super) struct RabbitMq;

impl Subject for RabbitMq {
    fn service(&self) -> &'static str {
        "rabbitmq"
    }

    fn config(&self) -> &'static str {
        "seed = [\"definitions\", \"seed.json\"]\n"
    }

    fn provider(&self) -> &'static str {
        "plugins = [\"rabbitmq_management\"]\n"
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        &[
            (
                "definitions/1_queues.json",
                r#"{ "queues": [{ "name": "written", "vhost": "/", "durable": true, "auto_delete": false,
                                  "arguments": {} }],
                     "exchanges": [{ "name": "all", "vhost": "/", "type": "fanout", "durable": true,
                                     "auto_delete": false, "internal": false, "arguments": {} }],
                     "bindings": [{ "source": "all", "vhost": "/", "destination": "written",
                                    "destination_type": "queue", "routing_key": "", "arguments": {} }] }"#,
            ),
            (
                "seed.json",
                r#"{ "queues": [{ "name": "seeded", "durable": true, "auto_delete": false,
                                  "arguments": { "x-queue-type": "quorum" } }] }"#,
            ),
        ]
    }

    fn broken(&self) -> (&'static str, &'static str, &'static str) {
        ("seed.json", r#"{ "queues": [{ "name": "seeded" }, 7] }"#, "seed.json holds no definitions")
    }

    fn is_here(&self) -> bool {
        crate::have("rabbitmq-server")
    }

    fn check_new(&self, lease: &Lease) -> Result<(), String> {
        let mut amqp = Amqp::connect(lease)?;
        same(&amqp.count("seeded")?, &0)?;
        same(&amqp.count("written")?, &0)
    }

    fn write(&self, lease: &Lease, value: &str) -> Result<(), String> {
        let mut amqp = Amqp::connect(lease)?;
        amqp.publish("all", "", value)?;
        // Answered once the message is where it belongs.
        amqp.count("written").map(drop)
    }

    fn read(&self, lease: &Lease) -> Result<Vec<String>, String> {
        Amqp::connect(lease)?.look("written")
    }
}
