// Reads handwritten digits through the generated stubs: client ADDRESS MANAGEMENT [PICTURE].
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "servegrpc/clients/go/servegrpc/v1"
)

const (
	sample          = "examples/digits/samples/seven.png" // from the repository's root
	maxMessageBytes = 64 << 20                            // 4 MiB unless told
)

// bar returns a 1: an upright bar, as the typed array [1, 8, 8] that the model takes without a picture's detour.
func bar() *pb.Value {
	data := make([]byte, 4*64)
	for row := 0; row < 8; row++ {
		binary.LittleEndian.PutUint32(data[4*(8*row+3):], math.Float32bits(1))
		binary.LittleEndian.PutUint32(data[4*(8*row+4):], math.Float32bits(1))
	}
	tensor := &pb.Tensor{DataType: pb.DataType_DATA_TYPE_FP32, Shape: []int64{1, 8, 8}, Data: data}
	return &pb.Value{Kind: &pb.Value_Tensor{Tensor: tensor}}
}

func inputs(value *pb.Value) map[string]*pb.Value {
	return map[string]*pb.Value{"data": value}
}

// reply is what the replies of all three ways to predict have.
type reply interface {
	GetOutput() *pb.Value
	GetModelName() string
	GetModelVersion() string
}

func show(step string, r reply) {
	fields := r.GetOutput().GetJson().GetStructValue().GetFields()
	digit, name := fields["digit"].GetNumberValue(), fields["name"].GetStringValue()
	fmt.Printf("%s: digit %v, %s, by %s %s\n", step, digit, name, r.GetModelName(), r.GetModelVersion())
}

// codeName returns a code's name as gRPC writes it: NOT_FOUND for codes.NotFound.
func codeName(err error) string {
	var name strings.Builder
	for i, letter := range status.Code(err).String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			name.WriteByte('_')
		}
		name.WriteRune(letter)
	}
	return strings.ToUpper(name.String())
}

// reasonOf returns the reason in the error's details, a name of servegrpc.v1.ErrorReason.
func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if errorInfo, ok := detail.(*errdetails.ErrorInfo); ok {
			return errorInfo.GetReason()
		}
	}
	return ""
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func connect(address string) *grpc.ClientConn {
	connection, err := grpc.Dial(address, grpc.WithInsecure(), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)))
	check(err)
	return connection
}

func stream(ctx context.Context, inference pb.InferenceServiceClient, picture *pb.Value) {
	parts, err := inference.PredictStream(ctx, &pb.PredictStreamRequest{ModelName: "digits", Inputs: inputs(picture)})
	check(err)
	for {
		part, err := parts.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		check(err)
		show("stream", part)
	}
}

func session(ctx context.Context, inference pb.InferenceServiceClient, picture *pb.Value) {
	session, err := inference.PredictSession(ctx)
	check(err)
	check(session.Send(&pb.PredictSessionRequest{ModelName: "digits", Inputs: inputs(picture)}))
	check(session.Send(&pb.PredictSessionRequest{Inputs: inputs(bar())}))
	check(session.CloseSend())
	for {
		reply, err := session.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		check(err)
		show("session", reply)
	}
}

// watch goes on until its deadline, and returns the error of that.
func watch(models pb.ManagementServiceClient) error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	changes, err := models.WatchModels(ctx, &pb.WatchModelsRequest{})
	for err == nil {
		_, err = changes.Recv()
	}
	return err
}

func archiveOf(models []*pb.Model, name string) string {
	for _, model := range models {
		if model.Name == name {
			return model.Versions[0].Archive
		}
	}
	log.Fatalf("no model %q", name)
	return ""
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: client ADDRESS MANAGEMENT [PICTURE]")
		os.Exit(2)
	}
	address, management, path := os.Args[1], os.Args[2], sample
	if len(os.Args) > 3 {
		path = os.Args[3]
	}
	connection, managementConnection := connect(address), connect(management)
	defer connection.Close()
	defer managementConnection.Close()
	inference, models := pb.NewInferenceServiceClient(connection), pb.NewManagementServiceClient(managementConnection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // one deadline for all calls below; a program that stays makes one for each
	defer cancel()

	health, err := grpc_health_v1.NewHealthClient(connection).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	check(err)
	fmt.Println("server:", health.Status)

	listed, err := models.ListModels(ctx, &pb.ListModelsRequest{})
	check(err)
	var names []string
	for _, model := range listed.Models {
		names = append(names, model.Name)
	}
	fmt.Println("models:", strings.Join(names, ", "))

	content, err := os.ReadFile(path)
	check(err)
	picture := &pb.Value{Kind: &pb.Value_Binary{Binary: content}}
	prediction, err := inference.Predict(ctx, &pb.PredictRequest{ModelName: "digits", Inputs: inputs(picture)})
	check(err)
	show("picture", prediction)

	prediction, err = inference.Predict(ctx, &pb.PredictRequest{ModelName: "digits", Inputs: inputs(bar())})
	check(err)
	show("tensor", prediction)

	stream(ctx, inference, picture)

	session(ctx, inference, picture)

	err = watch(models)
	if status.Code(err) != codes.DeadlineExceeded {
		log.Fatal("watching ended with ", err)
	}
	fmt.Println("deadline:", codeName(err))

	_, err = inference.Predict(ctx, &pb.PredictRequest{ModelName: "no-such-model", Inputs: inputs(picture)})
	if err == nil {
		log.Fatal("no-such-model answered")
	}
	fmt.Println("no-such-model:", codeName(err), reasonOf(err))

	registered, err := models.RegisterModel(ctx, &pb.RegisterModelRequest{Archive: archiveOf(listed.Models, "digits"), ModelName: "digits-go"})
	check(err)
	fmt.Println("registered:", registered.Model.Name, registered.ModelVersion)
	_, err = models.UnregisterModel(ctx, &pb.UnregisterModelRequest{ModelName: "digits-go"})
	check(err)
	fmt.Println("unregistered: digits-go")

	fmt.Println("go OK")
}
