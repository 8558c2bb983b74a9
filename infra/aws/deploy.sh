#!/bin/bash
# Deploys template.yaml: asks for what it needs, says what it will make and what that costs idle, then calls sam, which shows the
# changes and asks once more. `make deploy` runs it. The consumer's secret goes through a file that its owner alone can read and that is
# gone afterwards, never through a command line, and CloudFormation does not show it again.
set -euo pipefail
cd "$(dirname "$0")/../.."

environment=${1:-dev}
sam=${SAM:-bin/sam/bin/sam}
python=${SAM_PYTHON:-bin/sam/bin/python}
idle=5.73 # dollars a month; the sum of the table in docs/aws.md
region='' stack='' client='' workspaces='' email='' sure=''

say() { printf '%s\n' "$@" >&2; }
give_up() { say "$1"; exit 1; }

# ask NAME QUESTION DEFAULT sets the variable NAME.
ask() {
  local answer
  printf '%s%s: ' "$2" "${3:+ [$3]}" >&2
  IFS= read -r answer || give_up 'no answer'
  printf -v "$1" '%s' "${answer:-$3}"
}

# value KIND NAME answers a parameter or an output of the stack, as stack.py tells it.
value() { printf '%s\n' "$state" | sed -n "s/^$1 $2 \{0,1\}//p"; }

overrides=infra/aws/environments/$environment.yaml
[[ $environment =~ ^[a-z]+$ && -f $overrides ]] || give_up "there is no environment $environment: $overrides is missing"

ask region 'Region' "${AWS_REGION:-${AWS_DEFAULT_REGION:-}}"
[[ $region =~ ^[a-z]{2}(-[a-z]+)+-[0-9]$ ]] || give_up "\"$region\" is no region; one is eu-central-1, for example"
export AWS_REGION=$region AWS_DEFAULT_REGION=$region
who=$("$python" infra/aws/stack.py account) || give_up 'sign in to AWS first: docs/aws.md says how'
read -r account identity <<<"$who"

ask stack 'Name of the stack' "$(sed -n "/^\[$environment\.deploy\.parameters\]/,/^\$/s/^stack_name = \"\(.*\)\"/\1/p" samconfig.toml)"
[[ $stack =~ ^[a-z][a-z0-9-]{0,31}$ ]] || give_up "\"$stack\" is no name for a stack here: a small letter, then small letters, digits and hyphens, at most 32"
state=$("$python" infra/aws/stack.py state "$stack") || give_up 'AWS did not tell of the stack'

case $(value status '') in
ROLLBACK_COMPLETE | ROLLBACK_FAILED | DELETE_FAILED)
  give_up "the stack $stack is what a deployment or a removal that failed left ($(value status '')), and AWS cannot bring it up to date. Read why in its events, delete it, and come again:
  $sam delete --stack-name $stack --region $region" ;;
UPDATE_ROLLBACK_FAILED)
  give_up "a change of the stack $stack failed, and so did going back ($(value status '')): AWS takes no other change before that is done. Read in its events what could not go back, mend that, and say
  aws cloudformation continue-update-rollback --stack-name $stack --region $region
then come again when it is UPDATE_ROLLBACK_COMPLETE" ;;
*_IN_PROGRESS)
  [[ $(value status '') == REVIEW_IN_PROGRESS ]] || give_up "the stack $stack is being changed just now ($(value status '')): wait for the end of that" ;;
esac

say '' 'The OAuth consumer on Bitbucket. Without one everything is made, and nobody can sign in yet: leave the key as it is, then make the consumer' \
  'with the address that is told at the end, and come again.'
known=$(value parameter BitbucketClientId)
ask client 'Key of the consumer' "${known:-none}"
[[ $client =~ ^[A-Za-z0-9_-]{1,128}$ ]] || give_up 'a key has letters, digits, hyphens and underscores'
secret=
if [[ $client != none ]]; then
  keep=
  [[ $client != "$known" ]] || keep=' (nothing keeps it)'
  printf 'Its secret, which is not shown%s: ' "$keep" >&2
  IFS= read -rs secret || give_up 'no answer'
  say ''
  [[ $secret =~ ^[!-~]{0,256}$ ]] || give_up 'that is no secret of Bitbucket: it has blanks or more than 256 characters'
  [[ -n $secret || -n $keep ]] || give_up 'a new key needs its secret'
fi

say '' 'Bitbucket workspaces whose members may sign in, by slug or UUID, with commas between; "-" is none. With none, the first to sign in owns the installation.'
ask workspaces 'Workspaces' "$(value parameter AllowedBitbucketWorkspaces)"
[[ $workspaces != - ]] || workspaces=
[[ $workspaces =~ ^[A-Za-z0-9_{},\ -]*$ ]] || give_up 'a workspace has letters, digits, hyphens and underscores'
ask email 'Who is told of alarms, by e-mail ("-" is nobody)' "$(value parameter AlarmEmail)"
[[ $email != - ]] || email=
[[ $email =~ ^([^@[:space:]\"\'\\]+@[^@[:space:]\"\'\\]+)?$ ]] || give_up "\"$email\" is no address"

say '' "In account $account, region $region, as $identity:"
if [[ -z $state ]]; then
  say "the stack $stack is made: ten functions with a role each, an HTTP API, a table, a bucket, two keys, six queues, a secret, a CodeBuild" \
    'project with its role, log groups, alarms and a topic for them, and a bucket of sam for what it uploads.'
else
  say "the stack $stack ($(value status '')) is brought up to date with this tree."
fi
say "Idle it costs about \$$idle a month at list prices (docs/aws.md), and what is built costs CodeBuild's minutes. The table, the bucket and the keys" \
  'stay when the stack is deleted.'
ask sure 'Go on? (y or n)' n
[[ $sure == y ]] || give_up 'nothing was done'

answers=$(mktemp -d)
trap 'rm -rf "$answers"' EXIT
(
  umask 077
  {
    printf "BitbucketClientId: '%s'\n" "$client"
    printf "AllowedBitbucketWorkspaces: '%s'\n" "$workspaces"
    printf "AlarmEmail: '%s'\n" "$email"
    [[ -z $secret ]] || printf "BitbucketClientSecret: '%s'\n" "${secret//\'/\'\'}"
  } >"$answers/answers.yaml"
)

FUNCTIONS_ARCH=$(sed -n "s/^Architecture: *//p" "$overrides" | tr -d "'\"")
export FUNCTIONS_ARCH=${FUNCTIONS_ARCH:-arm64}
"$sam" build --config-env "$environment"
"$sam" deploy --config-env "$environment" --region "$region" --stack-name "$stack" --parameter-overrides "file://$overrides" "file://$answers/answers.yaml"

state=$("$python" infra/aws/stack.py state "$stack") || give_up 'AWS did not tell of the stack'
address=$(value output Address)
[[ -n $address ]] || give_up 'there is no stack: the changes were not made'
say '' "RunnerHub is at $address"
if [[ $client == none ]]; then
  say 'Nobody can sign in yet. On Bitbucket, in the settings of a workspace, add an OAuth consumer:' \
    "  callback URL  $(value output CallbackUrl)" \
    '  permissions   Account: Read; Repositories: Read; Pull requests: Read; Webhooks: Read and write' \
    "Then run \"make deploy ENV=$environment\" again and give its key and secret."
else
  say "The consumer's callback URL has to be $(value output CallbackUrl)"
fi
[[ -z $email ]] || say "AWS asks $email to confirm that it wants to be told of alarms; until then it is told nothing."
