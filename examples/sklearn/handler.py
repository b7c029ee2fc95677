"""A handler without torch: it needs no base class, only `initialize` and `handle`."""

from pathlib import Path

import joblib
import numpy as np

from servegrpc.handlers import InvalidInput


class Irises:
    """Answers the four sizes of a flower, in centimetres, with the likeliest species and the probability of each."""

    def initialize(self, context):
        """Load the forest that the manifest names. It is a pickle, which can run any code: only load files whose maker you trust."""
        self.forest = joblib.load(Path(context.system_properties["model_dir"], context.manifest["model"]["serializedFile"]))

    def handle(self, data, context):
        """Classify all flowers of a batch in one call of scikit-learn."""
        flowers = np.array([self.sizes(index, row) for index, row in enumerate(data)])
        chances = self.forest.predict_proba(flowers)
        names = self.forest.classes_
        return [{"species": names[row.argmax()], "probabilities": dict(zip(names, row.round(4).tolist(), strict=True))} for row in chances]

    def sizes(self, index, row):
        """Return a request's four numbers; refuse anything else."""
        sizes = np.asarray(row.get("data"))
        if sizes.shape != (4,) or sizes.dtype.kind not in "if":
            raise InvalidInput('The input "data" must be four numbers.', field="inputs.data", row=index)
        return sizes
