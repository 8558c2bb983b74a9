package store_test

import (
	"crypto/rand"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"runnerhub/infra/ministack"
	"runnerhub/shared/store/storetest"
	"runnerhub/shared/table"
	"runnerhub/shared/table/dynamo"
)

func TestTurns(t *testing.T) {
	t.Parallel()
	storetest.Turns(t, storetest.New, 2000)
}

func TestTurnsOnDynamoDB(t *testing.T) {
	t.Parallel()
	storetest.Turns(t, onDynamoDB(t), 120)
}

func TestPipelines(t *testing.T) {
	t.Parallel()
	storetest.Pipelines(t, storetest.New)
}

func TestPipelinesOnDynamoDB(t *testing.T) {
	t.Parallel()
	storetest.Pipelines(t, onDynamoDB(t))
}

// onDynamoDB answers what makes a Bench on a table of its own in MiniStack.
func onDynamoDB(t *testing.T) func(testing.TB) *storetest.Bench {
	t.Helper()
	server, err := ministack.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return func(t testing.TB) *storetest.Bench {
		config := ministack.Config(server.URL())
		client := dynamodb.NewFromConfig(config)
		name := aws.String(rand.Text())
		text := func(name string) types.AttributeDefinition {
			return types.AttributeDefinition{AttributeName: &name, AttributeType: types.ScalarAttributeTypeS}
		}
		_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: name, BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{text(dynamo.PartitionKey), text(dynamo.SortKey)},
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String(dynamo.PartitionKey), KeyType: types.KeyTypeHash},
				{AttributeName: aws.String(dynamo.SortKey), KeyType: types.KeyTypeRange},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		real, err := dynamo.New(dynamo.Deps{Config: config, Table: *name, NewToken: rand.Text})
		if err != nil {
			t.Fatal(err)
		}
		return storetest.On(t, real, func(t testing.TB) map[table.Key]string {
			items := map[table.Key]string{}
			pages := dynamodb.NewScanPaginator(client, &dynamodb.ScanInput{TableName: name, ConsistentRead: aws.Bool(true)})
			for pages.HasMorePages() {
				page, err := pages.NextPage(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, item := range page.Items {
					text := func(name string) string { return item[name].(*types.AttributeValueMemberS).Value }
					k := table.Key{Partition: text(dynamo.PartitionKey), Sort: text(dynamo.SortKey)}
					items[k] = text("body")
				}
			}
			return items
		})
	}
}
