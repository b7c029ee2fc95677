"""What runs inside a worker process. Imports no grpc and no core."""
