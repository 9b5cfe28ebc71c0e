"""Rehearsals: thousands of seeded rollouts, what must hold of each, and that each invariant would notice."""
