"""What deploy.sh asks AWS, with the SDK that sam brings along.

stack.py account          the account and who asks
stack.py state NAME       nothing if there is no such stack, otherwise its status, parameters and outputs, one a line
"""

import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError


def account():
    who = boto3.client("sts").get_caller_identity()
    print(who["Account"], who["Arn"])


def state(name):
    try:
        stack = boto3.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return
        raise
    print("status", stack["StackStatus"])
    for parameter in stack.get("Parameters", []):
        print("parameter", parameter["ParameterKey"], parameter.get("ParameterValue", ""))
    for output in stack.get("Outputs", []):
        print("output", output["OutputKey"], output["OutputValue"])


if __name__ == "__main__":
    try:
        {"account": account, "state": state}[sys.argv[1]](*sys.argv[2:])
    except (BotoCoreError, ClientError) as error:
        sys.exit(f"AWS: {error}")
