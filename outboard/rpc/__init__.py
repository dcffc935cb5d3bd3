"""gRPC: server and channel set-up, streams of audio, errors and converters. No service knows how these work inside."""
