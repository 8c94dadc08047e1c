"""What `extraction.py` compares with: features the way Keras' own guides go, as a process of its own.

    python benchmarks/keras_predict.py FOLDER      (FOLDER holds one folder a class)

Pictures come from `keras.utils.image_dataset_from_directory` in batches of 32 at 224 px, features from
`Model.predict` of the same network. Prints JSON: the seconds from opening the folder to the last feature. Building the
network and one prediction before, which traces the graph, aren't counted.
"""

import json
import sys
import time

from retrain import backbones, devices

BATCH = 32


def main() -> None:
    """Compute the features of all pictures and print how long that took."""
    devices.start()
    import keras
    import numpy as np

    row = backbones.get(backbones.DEFAULT)
    both = row.build(row.weights(), row.image_size)
    model = keras.Model(both.inputs, both.outputs[0])
    model.predict(np.zeros((BATCH, row.image_size, row.image_size, 3), np.float32), verbose=0)
    began = time.perf_counter()
    pictures = keras.utils.image_dataset_from_directory(
        sys.argv[1],
        labels=None,
        batch_size=BATCH,
        image_size=(row.image_size, row.image_size),
        shuffle=False,
        verbose=False,
    )
    features = model.predict(pictures, verbose=0)
    print(json.dumps({"seconds": time.perf_counter() - began, "pictures": len(features)}))


if __name__ == "__main__":
    main()
