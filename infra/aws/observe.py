"""Tells what a deployment made, as the services themselves tell of it, for the test that compares it with the template.

observe.py NAME prints JSON: kind of resource, then its name, then what is known of it. A name without facts is there and no more.
"""

import io
import json
import sys
import urllib.request
import zipfile

import boto3
from botocore.exceptions import BotoCoreError, ClientError

name = sys.argv[1]
facts = {}


def fact(kind, thing, key, find):
    """Notes one fact; what a service does not answer is noted as that."""
    try:
        value = find()
    except (BotoCoreError, ClientError, KeyError, IndexError, TypeError) as error:
        value = f"not answered: {type(error).__name__}"
    facts.setdefault(kind, {}).setdefault(thing, {})[key] = value


def kind(kind, find):
    """Notes the things of a kind, which find tells by itself."""
    facts.setdefault(kind, {})
    try:
        find()
    except (BotoCoreError, ClientError, KeyError) as error:
        facts[kind]["not answered"] = {"error": f"{type(error).__name__}: {error}"}


def client(service):
    return boto3.client(service)


def statements(document):
    return json.loads(document)["Statement"] if isinstance(document, str) else document["Statement"]


def functions():
    api = client("lambda")
    for listed in api.list_functions()["Functions"]:
        f = listed["FunctionName"]
        c = api.get_function_configuration(FunctionName=f)
        for key, find in {
            "runtime": lambda: c["Runtime"],
            "handler": lambda: c["Handler"],
            "timeout": lambda: c["Timeout"],
            "memory": lambda: c["MemorySize"],
            "architecture": lambda: c["Architectures"],
            "role": lambda: c["Role"],
            "environment": lambda: c["Environment"]["Variables"],
            "layers": lambda: [layer["Arn"] for layer in c.get("Layers", [])],
            "log group": lambda: c["LoggingConfig"]["LogGroup"],
            "dead letters": lambda: c.get("DeadLetterConfig", {}).get("TargetArn", ""),
            "recursion": lambda: api.get_function_recursion_config(FunctionName=f)["RecursiveLoop"],
            "code": lambda: content(api.get_function(FunctionName=f)["Code"]["Location"]),
            "callers": lambda: [
                [s["Principal"]["Service"], s["Condition"]["ArnLike"]["AWS:SourceArn"]]
                for s in statements(api.get_policy(FunctionName=f)["Policy"])
            ],
        }.items():
            fact("function", f, key, find)
        try:
            asynchronous = api.get_function_event_invoke_config(FunctionName=f)
        except ClientError:
            asynchronous = {}
        fact("function", f, "asynchronous retries", lambda: asynchronous.get("MaximumRetryAttempts", 2))
        fact("function", f, "asynchronous age", lambda: asynchronous.get("MaximumEventAgeInSeconds", 21600))


def content(location):
    with urllib.request.urlopen(location) as answer:
        return sorted(zipfile.ZipFile(io.BytesIO(answer.read())).namelist())


def sources():
    for s in client("lambda").list_event_source_mappings()["EventSourceMappings"]:
        thing = s["EventSourceArn"]
        fact("source", thing, "function", lambda: s["FunctionArn"])
        fact("source", thing, "batch", lambda: int(s["BatchSize"]))
        fact("source", thing, "window", lambda: int(s.get("MaximumBatchingWindowInSeconds", 0)))
        fact("source", thing, "concurrency", lambda: int(s["ScalingConfig"]["MaximumConcurrency"]))
        fact("source", thing, "failures", lambda: s["FunctionResponseTypes"])


def layers():
    api = client("lambda")
    for layer in api.list_layers()["Layers"]:
        arn = layer["LatestMatchingVersion"]["LayerVersionArn"]
        fact("layer", layer["LayerName"], "content", lambda: content(api.get_layer_version_by_arn(Arn=arn)["Content"]["Location"]))


def http():
    api = client("apigatewayv2")
    for a in api.get_apis()["Items"]:
        identity = a["ApiId"]
        fact("api", a["Name"], "protocol", lambda: a["ProtocolType"])
        targets = {i["IntegrationId"]: i for i in api.get_integrations(ApiId=identity)["Items"]}
        for r in api.get_routes(ApiId=identity)["Items"]:
            target = targets[r["Target"].removeprefix("integrations/")]
            fact("route", r["RouteKey"], "function", lambda: target["IntegrationUri"])
            fact("route", r["RouteKey"], "payload", lambda: target["PayloadFormatVersion"])
            fact("route", r["RouteKey"], "timeout", lambda: int(target["TimeoutInMillis"]))
        for s in api.get_stages(ApiId=identity)["Items"]:
            fact("api", a["Name"], "stage", lambda: s["StageName"])
            fact("api", a["Name"], "deployed by itself", lambda: s["AutoDeploy"])
            fact("api", a["Name"], "throttle", lambda: throttle(s["DefaultRouteSettings"]))
            fact("api", a["Name"], "throttle of routes", lambda: {key: throttle(v) for key, v in s["RouteSettings"].items()})
            fact("api", a["Name"], "log group", lambda: s["AccessLogSettings"]["DestinationArn"])


def throttle(settings):
    return [float(settings["ThrottlingRateLimit"]), int(settings["ThrottlingBurstLimit"])]


def rules():
    api = client("events")
    for r in api.list_rules()["Rules"]:
        target = api.list_targets_by_rule(Rule=r["Name"])["Targets"][0]
        fact("rule", r["Name"], "pattern", lambda: json.loads(r["EventPattern"]) if r.get("EventPattern") else None)
        fact("rule", r["Name"], "rate", lambda: r.get("ScheduleExpression", ""))
        fact("rule", r["Name"], "target", lambda: target["Arn"])
        fact("rule", r["Name"], "retries", lambda: int(target["RetryPolicy"]["MaximumRetryAttempts"]))
        fact("rule", r["Name"], "age", lambda: int(target["RetryPolicy"]["MaximumEventAgeInSeconds"]))
        fact("rule", r["Name"], "dead letters", lambda: target.get("DeadLetterConfig", {}).get("Arn", ""))


def queues():
    api = client("sqs")
    for url in api.list_queues().get("QueueUrls", []):
        a = api.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        thing = url.rsplit("/", 1)[1]
        fact("queue", thing, "visibility", lambda: int(a["VisibilityTimeout"]))
        fact("queue", thing, "retention", lambda: int(a["MessageRetentionPeriod"]))
        fact("queue", thing, "encrypted", lambda: a["SqsManagedSseEnabled"])
        redrive = json.loads(a.get("RedrivePolicy", "{}"))
        fact("queue", thing, "dead letters", lambda: [redrive["deadLetterTargetArn"], int(redrive["maxReceiveCount"])] if redrive else [])
        fact("queue", thing, "policy", lambda: statements(a["Policy"]))


def tables():
    api = client("dynamodb")
    for thing in api.list_tables()["TableNames"]:
        t = api.describe_table(TableName=thing)["Table"]
        fact("table", thing, "keys", lambda: {k["KeyType"]: k["AttributeName"] for k in t["KeySchema"]})
        fact("table", thing, "billing", lambda: t["BillingModeSummary"]["BillingMode"])
        fact("table", thing, "encrypted", lambda: t["SSEDescription"]["Status"])
        fact("table", thing, "deletion protection", lambda: t["DeletionProtectionEnabled"])
        fact("table", thing, "expiry", lambda: api.describe_time_to_live(TableName=thing)["TimeToLiveDescription"]["AttributeName"])
        fact(
            "table", thing, "point-in-time recovery",
            lambda: api.describe_continuous_backups(TableName=thing)["ContinuousBackupsDescription"]["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"],
        )


def buckets():
    api = client("s3")
    for b in api.list_buckets()["Buckets"]:
        thing = b["Name"]
        if not thing.startswith(name):
            continue  # sam's own
        fact("bucket", thing, "encryption", lambda: api.get_bucket_encryption(Bucket=thing)["ServerSideEncryptionConfiguration"]["Rules"][0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])
        fact("bucket", thing, "public access blocked", lambda: all(api.get_public_access_block(Bucket=thing)["PublicAccessBlockConfiguration"].values()))
        fact("bucket", thing, "ownership", lambda: api.get_bucket_ownership_controls(Bucket=thing)["OwnershipControls"]["Rules"][0]["ObjectOwnership"])
        fact("bucket", thing, "abandoned uploads", lambda: int(api.get_bucket_lifecycle_configuration(Bucket=thing)["Rules"][0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"]))
        fact("bucket", thing, "policy", lambda: statements(api.get_bucket_policy(Bucket=thing)["Policy"]))


def keys():
    api = client("kms")
    aliases = {}
    for a in api.list_aliases()["Aliases"]:
        if name in a["AliasName"]:
            aliases.setdefault(a.get("TargetKeyId"), []).append(a["AliasName"])
    for k in api.list_keys()["Keys"]:
        thing = k["KeyId"]
        if thing not in aliases:
            continue
        fact("key", thing, "aliases", lambda: aliases[thing])
        fact("key", thing, "rotation", lambda: api.get_key_rotation_status(KeyId=thing)["KeyRotationEnabled"])
        fact("key", thing, "policy", lambda: statements(api.get_key_policy(KeyId=thing, PolicyName="default")["Policy"]))


def secrets():
    api = client("secretsmanager")
    for s in api.list_secrets()["SecretList"]:
        fact("secret", s["Name"], "value", lambda: api.get_secret_value(SecretId=s["ARN"])["SecretString"])


def projects():
    api = client("codebuild")
    for p in api.batch_get_projects(names=api.list_projects()["projects"])["projects"]:
        thing = p["name"]
        fact("project", thing, "role", lambda: p["serviceRole"])
        fact("project", thing, "buildspec", lambda: p["source"]["buildspec"])
        fact("project", thing, "source", lambda: p["source"]["type"])
        fact("project", thing, "image", lambda: p["environment"]["image"])
        fact("project", thing, "machine", lambda: [p["environment"]["type"], p["environment"]["computeType"]])
        fact("project", thing, "privileged", lambda: p["environment"].get("privilegedMode", False))
        fact("project", thing, "timeout", lambda: int(p["timeoutInMinutes"]))
        fact("project", thing, "queued", lambda: int(p["queuedTimeoutInMinutes"]))
        fact("project", thing, "log group", lambda: p["logsConfig"]["cloudWatchLogs"]["groupName"])


def logs():
    for g in client("logs").describe_log_groups()["logGroups"]:
        fact("log group", g["logGroupName"], "days", lambda: int(g["retentionInDays"]))


def groups():
    for g in client("scheduler").list_schedule_groups()["ScheduleGroups"]:
        if g["Name"] != "default":
            fact("schedule group", g["Name"], "state", lambda: g["State"])


def roles():
    api = client("iam")
    for r in api.list_roles()["Roles"]:
        thing = r["RoleName"]
        fact("role", thing, "trust", lambda: statements(r["AssumeRolePolicyDocument"]))
        fact("role", thing, "managed", lambda: [p["PolicyArn"] for p in api.list_attached_role_policies(RoleName=thing)["AttachedPolicies"]])
        fact(
            "role", thing, "policy",
            lambda: [
                s
                for p in api.list_role_policies(RoleName=thing)["PolicyNames"]
                for s in statements(api.get_role_policy(RoleName=thing, PolicyName=p)["PolicyDocument"])
            ],
        )


def alarms():
    for a in client("cloudwatch").describe_alarms()["MetricAlarms"]:
        thing = a["AlarmName"]
        fact("alarm", thing, "metric", lambda: [a["Namespace"], a["MetricName"]])
        fact("alarm", thing, "dimensions", lambda: {d["Name"]: d["Value"] for d in a["Dimensions"]})
        fact("alarm", thing, "tells", lambda: a["AlarmActions"])


def topics():
    api = client("sns")
    for t in api.list_topics()["Topics"]:
        arn = t["TopicArn"]
        fact("topic", arn, "policy", lambda: statements(api.get_topic_attributes(TopicArn=arn)["Attributes"]["Policy"]))
        fact("topic", arn, "told", lambda: [s["Endpoint"] for s in api.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]])


def resources():
    """The physical ids, by logical id, with that of the nested stack before it."""
    api = client("cloudformation")
    found = {}
    for r in api.describe_stack_resources(StackName=name)["StackResources"]:
        found[r["LogicalResourceId"]] = r["PhysicalResourceId"]
        if r["ResourceType"] == "AWS::CloudFormation::Stack":
            for nested in api.describe_stack_resources(StackName=r["PhysicalResourceId"])["StackResources"]:
                found[f"{r['LogicalResourceId']}.{nested['LogicalResourceId']}"] = nested["PhysicalResourceId"]
    return found


for what, find in {
    "function": functions, "source": sources, "layer": layers, "api": http, "rule": rules, "queue": queues, "table": tables, "bucket": buckets, "key": keys,
    "secret": secrets, "project": projects, "log group": logs, "schedule group": groups, "role": roles, "alarm": alarms, "topic": topics,
}.items():
    kind(what, find)
json.dump({"facts": facts, "resources": resources()}, sys.stdout, indent=1, sort_keys=True)
