//! Ways that lead back to where they began.

use std::collections::VecDeque;

/// Cycles among nodes that are numbered; `edges[node]` are the nodes after it. Every node that is on a cycle is on one of these, and each is as short
/// as one through its first node can be.
pub fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let candidate = without_ends(edges);
    let mut covered = vec![false; edges.len()];
    let mut found = Vec::new();
    for node in 0..edges.len() {
        if covered[node] || !candidate[node] {
            continue;
        }
        if let Some(cycle) = shortest(edges, &candidate, node) {
            cycle.iter().for_each(|node| covered[*node] = true);
            found.push(cycle);
        }
    }
    found
}

/// What is left when nodes that nothing leads to, or that lead nowhere, are taken away until there are none: every cycle, and the ways between them.
fn without_ends(edges: &[Vec<usize>]) -> Vec<bool> {
    let mut back = vec![Vec::new(); edges.len()];
    for (from, after) in edges.iter().enumerate() {
        after.iter().for_each(|to| back[*to].push(from));
    }
    let mut left = vec![true; edges.len()];
    for (forth, back) in [(edges, &back[..]), (&back[..], edges)] {
        // An edge counts as long as the node that it leads to is left.
        let mut count: Vec<usize> = forth.iter().map(|after| after.iter().filter(|to| left[**to]).count()).collect();
        let mut ends: Vec<usize> = (0..edges.len()).filter(|node| left[*node] && count[*node] == 0).collect();
        while let Some(end) = ends.pop() {
            left[end] = false;
            for before in back[end].iter().copied().filter(|before| left[*before]) {
                count[before] -= 1;
                if count[before] == 0 {
                    ends.push(before);
                }
            }
        }
    }
    left
}

/// A shortest way from a node to itself.
fn shortest(edges: &[Vec<usize>], candidate: &[bool], node: usize) -> Option<Vec<usize>> {
    let mut came_from = vec![None; edges.len()];
    let mut queue = VecDeque::from([node]);
    while let Some(at) = queue.pop_front() {
        if edges[at].contains(&node) {
            let mut way = vec![at];
            while way[way.len() - 1] != node {
                way.push(came_from[way[way.len() - 1]]?);
            }
            way.reverse();
            return Some(way);
        }
        for next in edges[at].iter().copied().filter(|next| candidate[*next]) {
            if next != node && came_from[next].is_none() {
                came_from[next] = Some(at);
                queue.push_back(next);
            }
        }
    }
    None
}
