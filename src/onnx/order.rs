//! The order in which a graph's nodes are computed.

use std::collections::HashMap;

use super::{GraphProto, NodeProto};

impl NodeProto {
    /// The values that the node reads, those that the graphs within it read from around them included.
    pub fn reads(&self) -> impl Iterator<Item = &str> {
        let mut graphs: Vec<&GraphProto> = self.graphs().collect();
        let mut names: Vec<&str> = self.input.iter().map(String::as_str).collect();
        while let Some(graph) = graphs.pop() {
            // Names that the graph itself gives lead nowhere outside.
            let reads = graph.node.iter().flat_map(|node| &node.input);
            names.extend(reads.chain(graph.output.iter().map(|it| &it.name)).map(String::as_str));
            graphs.extend(graph.node.iter().flat_map(Self::graphs));
        }
        names.into_iter().filter(|name| !name.is_empty())
    }

    /// The graphs within the node: the branches of an `If`, for instance.
    fn graphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
    }
}

/// Puts each node of `graph` behind those whose values it reads. ONNX asks for that and ONNX Runtime does without, so there are files that
/// serve and have another order. Nodes that need not move keep theirs, and a cycle stays one.
pub(super) fn sort(graph: &mut GraphProto) {
    let nodes = &graph.node;
    let outputs = nodes.iter().enumerate().flat_map(|(index, node)| node.output.iter().map(move |name| (name, index)));
    let producers: HashMap<&str, usize> =
        outputs.filter(|(name, _)| !name.is_empty()).map(|(name, index)| (name.as_str(), index)).collect();
    let needed = |index: usize| nodes[index].reads().filter_map(|name| producers.get(name).copied());
    if (0..nodes.len()).all(|index| needed(index).all(|other| other < index)) {
        return;
    }
    let mut order = Vec::with_capacity(nodes.len());
    let mut states = vec![State::New; nodes.len()];
    for first in 0..nodes.len() {
        let mut pending = vec![first];
        while let Some(&index) = pending.last() {
            match states[index] {
                State::New => {
                    states[index] = State::Open;
                    pending.extend(needed(index).filter(|&other| states[other] == State::New));
                }
                State::Open => {
                    states[index] = State::Done;
                    order.push(index);
                }
                State::Done => {
                    pending.pop();
                }
            }
        }
    }
    let mut nodes: Vec<_> = std::mem::take(&mut graph.node).into_iter().map(Some).collect();
    graph.node = order.into_iter().filter_map(|index| nodes[index].take()).collect();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not looked at.
    New,
    /// What it needs comes first.
    Open,
    /// It has its place.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(inputs: &[&str], output: &str) -> NodeProto {
        NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        }
    }

    fn order(nodes: Vec<NodeProto>) -> Vec<String> {
        let mut graph = GraphProto { node: nodes, ..GraphProto::default() };
        sort(&mut graph);
        graph.node.iter().map(|node| node.output[0].clone()).collect()
    }

    #[test]
    fn each_node_comes_behind_what_it_reads() {
        let reversed = vec![node(&["b", "c"], "d"), node(&["a"], "c"), node(&["a"], "b"), node(&["x"], "a")];
        let found = order(reversed);
        let place = |name: &str| found.iter().position(|it| it == name).unwrap();
        assert_eq!(found.len(), 4);
        assert!(place("a") < place("b") && place("a") < place("c"));
        assert!(place("b") < place("d") && place("c") < place("d"));
    }

    #[test]
    fn nodes_in_order_are_left_alone_and_a_cycle_loses_none() {
        let sorted = vec![node(&["x"], "b"), node(&["x"], "a"), node(&["b", "w"], "c")];
        assert_eq!(order(sorted), ["b", "a", "c"]);
        assert_eq!(order(vec![node(&["b"], "a"), node(&["a"], "b")]).len(), 2);
    }
}
