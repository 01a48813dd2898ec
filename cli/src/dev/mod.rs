#[cfg(test)]
mod nats_attacks;
mod nats_config;
mod programs;
