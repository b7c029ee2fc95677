"""Waits while it loads at the FIFO that its configuration names, and returns its inputs."""


class Waiting:
    def initialize(self, context):
        with open(context.model_yaml_config["gate"]) as gate:
            gate.read()

    def handle(self, data, context):
        return data
