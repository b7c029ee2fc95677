"""The digits example as a stream: it spells the digit's name, a letter more with each message. Needs the example's handler beside it."""

from handler import DigitHandler

from servegrpc.handlers.streaming import FINISHED


class Spelling(DigitHandler):
    def handle(self, data, context):
        answers = super().handle(data, context)
        for letters in range(1, 1 + max(len(answer["name"]) for answer in answers)):
            yield [{**own, "name": own["name"][:letters]} if letters <= len(own["name"]) else FINISHED for own in answers]
