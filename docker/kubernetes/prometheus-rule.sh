#!/bin/sh
# Prints docker/prometheus/alerts.yml, which Prometheus itself reads, as the PrometheusRule that its operator reads. What is about HAProxy is
# left out: an Ingress or a Gateway is there instead.
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
awk '
    /^---$/ { next }
    / # What is called ConvoyBalancer/ { next }
    / - alert: / { is_left_out = / ConvoyBalancer/ }
    !is_left_out { print $0 == "" ? "" : "  " $0 }
' "$(dirname "$0")/../prometheus/alerts.yml"
