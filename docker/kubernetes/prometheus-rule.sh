#!/bin/sh
# Prints docker/prometheus/alerts.yml, which Prometheus itself reads, as the PrometheusRule that its operator reads.
set -eu
cat <<'HEAD'
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: convoy
  labels:
    app.kubernetes.io/name: convoy
spec:
HEAD
sed -e '/^---$/d' -e 's/^\(.\)/  \1/' "$(dirname "$0")/../prometheus/alerts.yml"
