"""MQTT: pure topics and payloads, a durable outbox, and the session."""
