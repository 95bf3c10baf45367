"""What turns a checkpoint and imagery into what flies: ONNX, INT8, TensorRT, region maps, parity gates."""
