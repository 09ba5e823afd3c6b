"""What each family of PTX instructions does; a module that is imported fills the opcode table."""
