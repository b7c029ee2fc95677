"""The sum of all INPUT of a request's sequence so far."""


class Accumulator:
    def initialize(self, context):
        self.sums = {}

    def handle(self, data, context):
        return [{"OUTPUT": self.add(context.get_sequence_id(index), row["INPUT"])} for index, row in enumerate(data)]

    def add(self, sequence, value):
        self.sums[sequence] = self.sums.get(sequence, 0) + value
        return self.sums[sequence]

    def end_sequence(self, sequence):
        self.sums.pop(sequence, None)
