"""Streams of tasks: a source of images becomes T tasks; batches are made where the model lives."""
