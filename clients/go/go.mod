module servegrpc/clients/go

go 1.19

// genproto in its parts, which newer releases of grpc-go require: beside them the whole of it is an ambiguous import.
require (
	google.golang.org/genproto/googleapis/rpc v0.0.0-20230525234030-28d5490b6b19
	google.golang.org/grpc v1.57.2
	google.golang.org/protobuf v1.30.0
)
