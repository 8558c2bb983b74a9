// Package dynamo is the table on DynamoDB: one table of AWS with a partition and a
// sort key, no index, every read strongly consistent, every write a transaction.
//
// A transaction carries a token of its own, twice: as its request token, by which
// DynamoDB recognises a repeat for ten minutes, and in each item it puts. So whoever
// lost an answer may ask again, and a condition that failed on an item with the own
// token says that the transaction was done.
package dynamo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"runnerhub/shared/amazon"
	"runnerhub/shared/fault"
	"runnerhub/shared/table"
)

// The attributes of an item that the table's declaration must name: both keys are
// strings, and the last is the time to live. None is a reserved word of DynamoDB.
const (
	PartitionKey = "pk"
	SortKey      = "sk"
	TimeToLive   = "expires_at" // a number, Unix seconds
)

const (
	version   = "version"
	body      = "body"
	writtenBy = "written_by" // token of the transaction that put the item last
)

// Deps is what a Table needs.
type Deps struct {
	Config aws.Config
	Table  string // its name
	// NewToken answers what no call before answered, here or elsewhere: 1 to 36 letters and digits.
	NewToken func() string
}

// Table implements table.Table.
type Table struct {
	deps   Deps
	client *dynamodb.Client
}

var _ table.Table = (*Table)(nil)

// New makes the driver; it calls nobody.
func New(deps Deps) (*Table, error) {
	if deps.Config.Credentials == nil || deps.Config.Region == "" || deps.Table == "" || deps.NewToken == nil {
		return nil, errors.New("table/dynamo: no credentials, region, table or tokens")
	}
	client := dynamodb.NewFromConfig(deps.Config, func(o *dynamodb.Options) { o.Retryer = aws.NopRetryer{} })
	return &Table{deps: deps, client: client}, nil
}

// Get implements table.Table.
func (t *Table) Get(ctx context.Context, key table.Key) (table.Item, error) {
	if err := table.ValidateKeys(key); err != nil {
		return table.Item{}, err
	}
	var out *dynamodb.GetItemOutput
	err := read(ctx, func(ctx context.Context) (err error) {
		out, err = t.client.GetItem(ctx, &dynamodb.GetItemInput{
			TableName: &t.deps.Table, Key: names(key), ConsistentRead: aws.Bool(true),
		})
		return err
	})
	if err != nil {
		return table.Item{}, fmt.Errorf("reading %s: %w", key, err)
	}
	if len(out.Item) == 0 {
		return table.Item{}, fault.New(fault.NotFound, "there is no item %s", key)
	}
	return decode(out.Item)
}

// BatchGet implements table.Table.
func (t *Table) BatchGet(ctx context.Context, keys []table.Key) ([]table.Item, error) {
	if err := table.ValidateKeys(keys...); err != nil {
		return nil, err
	}
	items := make([]table.Item, 0, len(keys))
	if len(keys) == 0 {
		return items, ctx.Err()
	}
	found, err := t.find(ctx, keys)
	if err != nil {
		return nil, fmt.Errorf("reading %d items: %w", len(keys), err)
	}
	for _, key := range keys {
		if item, ok := found[key]; ok {
			item.Body = append([]byte(nil), item.Body...) // a key may be there twice
			items = append(items, item)
		}
	}
	return items, nil
}

// find reads what exists among the keys. DynamoDB answers a part when all would be
// too much at once, and names the rest.
func (t *Table) find(ctx context.Context, keys []table.Key) (map[table.Key]table.Item, error) {
	const idle = 5 // answers without any progress, after which it is busy
	rest := types.KeysAndAttributes{ConsistentRead: aws.Bool(true)}
	asked := map[table.Key]bool{}
	for _, key := range keys {
		if !asked[key] {
			asked[key] = true
			rest.Keys = append(rest.Keys, names(key))
		}
	}
	found := make(map[table.Key]table.Item, len(keys))
	for tried := 1; len(rest.Keys) > 0; {
		if tried > idle {
			return nil, fault.New(fault.Unavailable, "the table is busy")
		}
		var out *dynamodb.BatchGetItemOutput
		err := read(ctx, func(ctx context.Context) (err error) {
			out, err = t.client.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{
				RequestItems: map[string]types.KeysAndAttributes{t.deps.Table: rest},
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		// An answer names its table as it was asked for, or by its ARN; there is but one.
		for _, some := range out.Responses {
			for _, attributes := range some {
				item, err := decode(attributes)
				if err != nil {
					return nil, err
				}
				found[item.Key] = item
			}
		}
		before := len(rest.Keys)
		rest.Keys = nil
		for _, unprocessed := range out.UnprocessedKeys {
			rest.Keys = unprocessed.Keys
		}
		if len(rest.Keys) == before {
			amazon.Pause(ctx, tried)
			tried++
		}
	}
	return found, nil
}

// Query implements table.Table.
func (t *Table) Query(ctx context.Context, q table.Query) (table.Page, error) {
	r, err := q.Range()
	if err != nil {
		return table.Page{}, err
	}
	if r.Before != "" && r.From >= r.Before {
		return table.Page{}, ctx.Err() // a range of nothing, which DynamoDB refuses
	}
	in := &dynamodb.QueryInput{
		TableName: &t.deps.Table, ConsistentRead: aws.Bool(true), Limit: aws.Int32(int32(r.Limit)), ScanIndexForward: aws.Bool(!r.Reverse),
		KeyConditionExpression:    aws.String(PartitionKey + " = :partition"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":partition": text(r.Partition)},
	}
	if r.From != "" {
		in.ExpressionAttributeValues[":from"] = text(r.From)
	}
	if r.Before != "" {
		in.ExpressionAttributeValues[":before"] = text(r.Before)
	}
	switch after := r.After; {
	case r.From != "" && r.Before != "":
		// The end of BETWEEN is part of it. Forwards it is dropped below; backwards
		// the page begins behind it.
		*in.KeyConditionExpression += " AND " + SortKey + " BETWEEN :from AND :before"
		if r.Reverse && after == "" {
			in.ExclusiveStartKey = names(table.Key{Partition: r.Partition, Sort: r.Before})
		}
	case r.From != "":
		*in.KeyConditionExpression += " AND " + SortKey + " >= :from"
	case r.Before != "":
		*in.KeyConditionExpression += " AND " + SortKey + " < :before"
	}
	if r.After != "" {
		in.ExclusiveStartKey = names(table.Key{Partition: r.Partition, Sort: r.After})
	}
	var out *dynamodb.QueryOutput
	if err := read(ctx, func(ctx context.Context) (err error) { out, err = t.client.Query(ctx, in); return err }); err != nil {
		return table.Page{}, fmt.Errorf("querying %s: %w", r.Partition, err)
	}
	var page table.Page
	for _, attributes := range out.Items {
		item, err := decode(attributes)
		if err != nil {
			return table.Page{}, fmt.Errorf("querying %s: %w", r.Partition, err)
		}
		if r.Before == "" || item.Key.Sort < r.Before {
			page.Items = append(page.Items, item)
		}
	}
	if last, ok := out.LastEvaluatedKey[SortKey].(*types.AttributeValueMemberS); ok && (r.Before == "" || last.Value < r.Before) {
		page.Cursor = r.Cursor(last.Value)
	}
	return page, nil
}

// Transact implements table.Table.
func (t *Table) Transact(ctx context.Context, writes ...table.Write) error {
	if err := table.Validate(writes); err != nil {
		return err
	}
	token := t.deps.NewToken()
	in := &dynamodb.TransactWriteItemsInput{ClientRequestToken: &token}
	for _, w := range writes {
		in.TransactItems = append(in.TransactItems, t.write(w, token))
	}
	calls, same := amazon.Usual(), &sameBytes{}
	calls.Judge = judge
	err := calls.Do(ctx, func(ctx context.Context) error {
		_, err := t.client.TransactWriteItems(ctx, in, dynamodb.WithAPIOptions(same.add))
		if mine(err, token) {
			return nil
		}
		return err
	})
	if err == nil {
		return nil
	}
	return fmt.Errorf("writing %d items: %w", len(writes), transactFault(err))
}

// sameBytes makes each attempt send the bytes of the first. The SDK writes the members of
// a map in any order, and whether DynamoDB takes that for the same request under
// the same token, its documents do not say.
type sameBytes struct{ body []byte }

func (s *sameBytes) add(stack *middleware.Stack) error {
	return stack.Serialize.Add(s, middleware.After)
}

// ID implements middleware.SerializeMiddleware.
func (s *sameBytes) ID() string { return "SameBytes" }

// HandleSerialize implements middleware.SerializeMiddleware.
func (s *sameBytes) HandleSerialize(ctx context.Context, in middleware.SerializeInput, next middleware.SerializeHandler) (
	out middleware.SerializeOutput, metadata middleware.Metadata, err error,
) {
	request, ok := in.Request.(*smithyhttp.Request)
	if !ok {
		return out, metadata, fmt.Errorf("a request of type %T", in.Request)
	}
	if s.body == nil {
		if s.body, err = io.ReadAll(request.GetStream()); err != nil {
			return out, metadata, err
		}
	}
	if in.Request, err = request.SetStream(bytes.NewReader(s.body)); err != nil {
		return out, metadata, err
	}
	return next.HandleSerialize(ctx, in)
}

// write is one part of a transaction. A put is an update, so that DynamoDB itself
// counts the version, whether or not the caller knows it.
func (t *Table) write(w table.Write, token string) types.TransactWriteItem {
	condition, values := condition(w.Condition)
	key, old := names(w.Item.Key), types.ReturnValuesOnConditionCheckFailureAllOld
	switch w.Action {
	case table.ActionDelete:
		return types.TransactWriteItem{Delete: &types.Delete{
			TableName: &t.deps.Table, Key: key, ReturnValuesOnConditionCheckFailure: old,
			ConditionExpression: condition, ExpressionAttributeValues: values,
		}}
	case table.ActionCheck:
		return types.TransactWriteItem{ConditionCheck: &types.ConditionCheck{
			TableName: &t.deps.Table, Key: key, ReturnValuesOnConditionCheckFailure: old,
			ConditionExpression: condition, ExpressionAttributeValues: values,
		}}
	}
	change := "SET " + version + " = if_not_exists(" + version + ", :zero) + :one, " + body + " = :body, " + writtenBy + " = :token"
	if values == nil {
		values = map[string]types.AttributeValue{}
	}
	values[":zero"], values[":one"] = number(0), number(1)
	values[":body"], values[":token"] = text(string(w.Item.Body)), text(token)
	if at := w.Item.ExpiresAt; at.IsZero() {
		change += " REMOVE " + TimeToLive
	} else {
		change += ", " + TimeToLive + " = :expires"
		values[":expires"] = number(at.Unix())
	}
	return types.TransactWriteItem{Update: &types.Update{
		TableName: &t.deps.Table, Key: key, ReturnValuesOnConditionCheckFailure: old,
		UpdateExpression: &change, ConditionExpression: condition, ExpressionAttributeValues: values,
	}}
}

// condition answers nothing for the condition that always holds.
func condition(c table.Condition) (expression *string, values map[string]types.AttributeValue) {
	switch {
	case c.IsAbsent():
		return aws.String("attribute_not_exists(" + PartitionKey + ")"), nil
	case c.Version() > 0:
		return aws.String(version + " = :version"), map[string]types.AttributeValue{":version": number(c.Version())}
	}
	return nil, nil
}

func names(k table.Key) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{PartitionKey: text(k.Partition), SortKey: text(k.Sort)}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func number(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

// decode refuses what this driver does not write.
func decode(attributes map[string]types.AttributeValue) (table.Item, error) {
	pk, hasPartition := attributes[PartitionKey].(*types.AttributeValueMemberS)
	sk, hasSort := attributes[SortKey].(*types.AttributeValueMemberS)
	content, hasBody := attributes[body].(*types.AttributeValueMemberS)
	if !hasPartition || !hasSort || !hasBody {
		return table.Item{}, errors.New("an item of the table lacks its keys or its body")
	}
	item := table.Item{Key: table.Key{Partition: pk.Value, Sort: sk.Value}, Body: []byte(content.Value)}
	var err error
	if item.Version, err = integer(attributes[version]); err != nil {
		return table.Item{}, fmt.Errorf("the version of %s: %w", item.Key, err)
	}
	if at, ok := attributes[TimeToLive]; ok {
		seconds, err := integer(at)
		if err != nil {
			return table.Item{}, fmt.Errorf("the expiry of %s: %w", item.Key, err)
		}
		item.ExpiresAt = time.Unix(seconds, 0).UTC()
	}
	return item, nil
}

func integer(v types.AttributeValue) (int64, error) {
	n, ok := v.(*types.AttributeValueMemberN)
	if !ok {
		return 0, errors.New("is not a number")
	}
	return strconv.ParseInt(n.Value, 10, 64)
}
