"""Heat maps: what in a picture speaks for a label, computed and drawn. No TensorFlow.

maps      the map of a picture, exact from the network's spatial map, or by covering parts of it
region    where the heat lies, in words
cover     a picture with another border or background: what these carry
colours   a map as a layer of colour over its picture
"""
