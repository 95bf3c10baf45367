"""The papers' methods as ONNX files: a profile is a part of a method with fixed shapes, a file for each precision."""
