"""What is served and how requests wait. Imports no grpc, torch, ray or multiprocessing; of ours only `errors`."""
