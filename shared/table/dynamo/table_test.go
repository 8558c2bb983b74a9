package dynamo

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"runnerhub/infra/ministack"
	"runnerhub/shared/table"
	"runnerhub/shared/table/tabletest"
)

// harness makes tables in the MiniStack at url. An address names both, as a child of the
// suite has nothing else.
func harness(url string) tabletest.Harness {
	return tabletest.Harness{
		New: func(t testing.TB) string {
			name := rand.Text()
			declare(t, ministack.Config(url), name)
			return url + " " + name
		},
		Open: func(address string) (table.Table, func() error, error) {
			url, name, _ := strings.Cut(address, " ")
			tb, err := New(Deps{Config: ministack.Config(url), Table: name, NewToken: rand.Text})
			return tb, func() error { return nil }, err
		},
	}
}

// declare makes the table as the template does.
func declare(t testing.TB, config aws.Config, name string) {
	t.Helper()
	_, err := dynamodb.NewFromConfig(config).CreateTable(t.Context(), &dynamodb.CreateTableInput{
		TableName: &name, BillingMode: types.BillingModePayPerRequest,
		AttributeDefinitions: []types.AttributeDefinition{
			{AttributeName: aws.String(PartitionKey), AttributeType: types.ScalarAttributeTypeS},
			{AttributeName: aws.String(SortKey), AttributeType: types.ScalarAttributeTypeS},
		},
		KeySchema: []types.KeySchemaElement{
			{AttributeName: aws.String(PartitionKey), KeyType: types.KeyTypeHash},
			{AttributeName: aws.String(SortKey), KeyType: types.KeyTypeRange},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { tabletest.Main(m, harness("")) }

func TestOnMiniStack(t *testing.T) {
	t.Parallel()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Run("contract", func(t *testing.T) {
		t.Parallel()
		tabletest.Run(t, harness(server.URL()))
	})
	t.Run("nothing is done twice", func(t *testing.T) {
		t.Parallel()
		nothingIsDoneTwice(t, ministack.Config(server.URL()))
	})
}
